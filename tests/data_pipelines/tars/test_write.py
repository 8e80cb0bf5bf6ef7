"""The bytes of a shard are those that Python's tarfile and webdataset write, and every tar reader reads them."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.tars.index import scan_stream
from data_pipelines.tars.write import MODE, OWNER, member_header, write_tar
from seqtok_core.foundation.compat import import_webdataset
from seqtok_core.foundation.errors import DataError

LONG = "k" * 128
SAMPLES = [
    ("a", {"txt": b"x", "jpg": bytes(512), "json": b"{}" * 400}),
    ("b-1", {"npy": b"", "latent.npy": b"1" * 511}),
    (LONG[:96], {"jpg": b"just short enough for ustar"}),
    (LONG[:97], {"jpg": b"one byte too long for it"}),
    (LONG, {"jpg": b"\0" * 513, "json": b"[]"}),
]


def written(samples) -> tuple[bytes, object]:
    stream = io.BytesIO()
    content = write_tar(stream, iter(samples), "s.tar")
    return stream.getvalue(), content


def test_bytes_equal_those_of_webdataset():
    stream = io.BytesIO()
    options = {"encoder": False, "mtime": 0, "user": OWNER, "group": OWNER, "mode": MODE}
    with import_webdataset().TarWriter(stream, **options) as tar:
        for key, members in SAMPLES:
            tar.write({"__key__": key, **members})
    assert written(SAMPLES)[0] == stream.getvalue()
    assert len(written([])[0]) == tarfile.RECORDSIZE


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=300),
    st.one_of(st.integers(0, 2**33 + 2), st.integers(2**33 - 2, 2**34)),
)
def test_headers_equal_those_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname = size, MODE, OWNER, OWNER
    assert member_header(name, size) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def test_offsets_and_hash_are_those_of_the_file():
    data, content = written(SAMPLES)
    assert content.samples == scan_stream(io.BytesIO(data), "s.tar")
    assert (content.bytes, content.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    for (key, members), sample in zip(SAMPLES, content.samples, strict=True):
        assert sample.key == key
        spans = {name: data[start : start + size] for name, (start, size) in sample.members.items()}
        assert spans == {name: members[name] for name in sorted(members)}


def test_webdataset_and_gnu_tar_read_long_keys(tmp_path):
    path = tmp_path / "s.tar"
    path.write_bytes(written(SAMPLES[2:])[0])
    read = list(import_webdataset().WebDataset(str(path), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [key for key, _ in SAMPLES[2:]]
    assert read[2]["jpg"] == SAMPLES[4][1]["jpg"]
    if shutil.which("tar"):
        listed = subprocess.run(["tar", "tf", str(path)], capture_output=True, text=True, check=True)
        assert listed.stdout.split() == [f"{k}.{e}" for k, members in SAMPLES[2:] for e in sorted(members)]
        assert listed.stderr == ""


def test_unsafe_and_repeated_keys_are_refused():
    for key in ("../a", "a/b", "a.b", "", "ü", LONG + "k"):
        with pytest.raises(DataError, match="unsafe key"):
            written([(key, {"txt": b""})])
    with pytest.raises(DataError, match="'a' comes twice"):
        written([SAMPLES[0], SAMPLES[1], SAMPLES[0]])
