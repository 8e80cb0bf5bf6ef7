"""Where streams come from: lists, globs, commands that fail, fsspec; what is bad in them; a captions model of one."""

from __future__ import annotations

import functools
import gzip
import http.server
import threading
from itertools import islice
from pathlib import Path

import pytest

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.reading.stream import StreamConfig, StreamLoader
from data_pipelines.reading.streamed_record import members_read
from data_pipelines.reading.vocabulary import captions_of_stream, train_vocabulary
from data_pipelines.sources.records import Fields
from data_pipelines.tars import remote
from data_pipelines.tars.remote import expand
from data_pipelines.tars.stream import stream_samples
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.toy import foreign_members, vocabulary, write_tar
from tests.seqtok.commands.test_commands import seqtok

TOKENIZER = vocabulary()
READ = members_read(Fields())


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for number, folder in enumerate(("a", "a", "b/c")):
        write_tar(tmp_path / f"{folder}/x-{number}.tar", foreign_members(10 * number, 10))
    return tmp_path


def keys_in(name: str) -> list[str]:
    return [key for key, _ in stream_samples(name, READ)]


def stream(shards: str, **changes) -> StreamLoader:
    settings = {"image_size": 16, "levels": 2, **changes}
    source = StreamConfig(shards=shards, num_samples=30, allow_remote=True, shuffle_buffer=4)
    return StreamLoader(source, TOKENIZER, LoaderConfig(**settings), seed=0, global_batch=4)


def test_names_are_lists_braces_and_globs(tars: Path):
    every = tuple(str(tars / name) for name in ("a/x-0.tar", "a/x-1.tar", "b/c/x-2.tar"))
    assert expand([f"{tars}/a/x-{{0..1}}.tar::{tars}/b/c/x-2.tar"], False) == every
    assert expand([f"{tars}/**/*.tar"], False) == every
    assert expand([f"{tars}/a/*.tar::{tars}/b/**/x-[2-9].tar"], False) == every
    assert expand([f"file://{tars}/a/x-0.tar"], False) == every[:1]
    assert expand(["pipe:cat x::pipe:cat y"], True) == ("pipe:cat x", "pipe:cat y")
    odd = write_tar(tars / "[1].tar", foreign_members(0, 1))
    assert expand([str(odd)], False) == (str(odd),), "a file that is called so"
    with pytest.raises(ConfigError, match=r"z\*\.tar: no file fits"):
        expand([f"{tars}/z*.tar"], False)
    for nothing in ("", "a.tar::", "::a.tar"):
        with pytest.raises(ConfigError, match="names no shard"):
            expand([nothing], False)
    with pytest.raises(ConfigError, match="must be allowed"):
        expand([f"{tars}/a/x-0.tar::memory://x.tar"], False)


def test_a_command_that_fails_says_why(tars: Path):
    path = tars / "a/x-0.tar"
    failing = {
        "no_such_program x": "the command failed with exit status 127: .*no_such_program: .*not found",
        "echo it is gone >&2; exit 4": "the command failed with exit status 4: it is gone",
        f"head -c 3000 {path}; echo cut >&2; false": "the command failed with exit status 1: cut",
        f"cat {path}; exit 3": "the command failed with exit status 3, and said nothing",
        f"cat {path}; kill -9 $$": "the command was ended by signal 9",
        f"head -c 70000 /dev/zero | tr '\\0' x >&2; cat {path}; exit 5": "exit status 5: x{400}$",
    }
    for command, said in failing.items():
        with pytest.raises(DataError, match=said) as caught:
            keys_in(f"pipe:{command}")
        assert "damaged" not in str(caught.value)
        assert "({" not in str(caught.value), "nothing that only Python reads"
    with pytest.raises(DataError, match=r"damaged or cut tar|ends too early"):
        keys_in(f"pipe:head -c 3000 {path}")
    assert keys_in(f"pipe:echo a warning >&2; cat {path}") == [f"k{n}" for n in range(10)]
    with pytest.raises(DataError, match=r"damaged or cut tar|damaged header"):
        keys_in(f"pipe:head -c 2048 {path}; yes")  # goes on for ever: it is the tar that is wrong
    for _ in islice(stream_samples(f"pipe:cat {path}; exit 3", READ), 2):
        pass  # who stops early is told nothing: the command was not at its end


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(remote, "_fsspec_knows", lambda scheme: False)
    with pytest.raises(DataError, match=r"s3://b/x\.tar: the program aws is not installed"):
        keys_in("s3://b/x.tar")


def test_unsorted_tars_are_told_how_to_be_sorted(tmp_path: Path):
    members = foreign_members(0, 3)
    path = write_tar(tmp_path / "x.tar", members[0::3] + members[1::3])
    with pytest.raises(DataError, match=r"'k0' comes twice; .*`tar --sort=name`"):
        keys_in(str(path))


def test_gzip_is_named_and_a_command_reads_it(tmp_path: Path):
    plain = write_tar(tmp_path / "plain.tar", foreign_members(0, 3))
    for name in ("x.tar.gz", "x.tgz", "x.tar"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(plain.read_bytes()))
        for place in (str(path), f"pipe:cat {path}"):
            with pytest.raises(DataError, match=r"compressed with gzip.*`pipe:gunzip -c FILE`"):
                keys_in(place)
        assert keys_in(f"pipe:gunzip -c < {path}") == ["k0", "k1", "k2"]


def test_what_fsspec_knows_is_read(tars: Path):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://bucket/x.tar", "wb") as out:
        out.write((tars / "a/x-0.tar").read_bytes())
    assert keys_in("memory://bucket/x.tar") == [f"k{n}" for n in range(10)]
    assert set(stream("memory://bucket/x.tar").first(4).keys) == {"k0", "k1", "k2", "k3"}
    with pytest.raises(DataError, match=r"memory://bucket/none\.tar: no such file"):
        keys_in("memory://bucket/none.tar")


def test_the_web_is_read_through_fsspec_where_curl_is_missing(tars: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tars))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *words: None)
    monkeypatch.setattr(remote.shutil, "which", lambda program: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        assert keys_in(f"{place}/a/x-0.tar") == [f"k{n}" for n in range(10)]
        with pytest.raises(DataError, match=r"none\.tar: "):
            keys_in(f"{place}/a/none.tar")
        server.shutdown()


def test_a_source_that_fails_while_it_is_read_is_named(tars: Path, monkeypatch: pytest.MonkeyPatch):
    class Lost(Exception):
        """As each file system has its own."""

    class Failing:
        def __init__(self) -> None:
            self.stream = open(tars / "a/x-0.tar", "rb")  # noqa: SIM115 - lives as long as the test

        def read(self, size: int) -> bytes:
            if self.stream.tell() > 4096:
                raise Lost("connection reset")
            return self.stream.read(min(size, 2048))

        def close(self) -> None:
            self.stream.close()

    monkeypatch.setattr(remote, "_open", lambda name: Failing())
    with pytest.raises(DataError, match=r"s3://x: the source failed \(connection reset\)"):
        keys_in("s3://x")


BAD = {
    "a": ([("a.txt", b"x")], r"x\.tar:a: no picture \(members \['txt'\]\)"),
    "b": ([("b.npy", b"x")], r"x\.tar:b: no picture \(members \['npy'\]\)"),
    "c.1": ([("c.1.jpg", b"x"), ("c.1.txt", b"x")], r"x\.tar:c\.1: dots in the name"),
    "d": ([("d.jpg", foreign_members(0, 1)[0][1]), ("d.json", b"{")], r"x\.tar:d: KEY\.json is not JSON"),
    "e": ([("e.input.jpg", b"x")], r"x\.tar:e: no picture .*`fields\.image_member`"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_bad_in_a_stream_is_an_error_or_counted(tmp_path: Path, kind: str):
    members, message = BAD[kind]
    path = write_tar(tmp_path / "x.tar", [*foreign_members(0, 8), *members])
    with pytest.raises(DataError, match=message + r".*on_bad_sample: skip"):
        list(islice(stream(str(path)).iterate(), 30))
    loader = stream(str(path), on_bad_sample="skip", max_bad_share=0.1)
    with pytest.warns(UserWarning, match=message + ".*: left out"):
        seen = {key for batch in islice(loader.iterate(), 30) for key in batch.keys}
    assert seen == {f"k{n}" for n in range(8)}
    assert len(loader.bad.places) == 1


def test_members_of_a_stream_are_taken_by_their_names(tmp_path: Path):
    picture = foreign_members(0, 1)[0][1]
    members = [(f"s{n}.{name}", data) for n in range(4) for name, data in (("in.jpg", picture), ("out.txt", b"a text"))]
    path = write_tar(tmp_path / "x.tar", members)
    batch = stream(str(path), fields=Fields(image_member="in", caption_members=("out.txt",))).first(4)
    assert batch.keys == ["s0", "s1", "s2", "s3"]
    assert batch.captions == [["a text"]] * 4


def test_a_captions_model_is_learned_from_a_stream(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The same as from a folder where all of it is read; with fewer samples those of whole shards in a drawn order."""
    every = expand([f"{tars}/**/*.tar"], False)
    assert len(list(captions_of_stream(every, 100, Fields()))) == 30
    some = list(captions_of_stream(every, 15, Fields()))
    assert len(some) == 15
    assert some == list(captions_of_stream(every, 15, Fields())), "drawn by a seed"
    (tmp_path / "flat").mkdir()
    for path in every:
        (tmp_path / "flat" / Path(path).name).write_bytes(Path(path).read_bytes())
    folder = train_vocabulary(tmp_path / "flat", 300)
    words = ["--samples", 30, "--vocab", 300, "--out", tmp_path / "captions.model", "--allow-remote"]
    status, out, err = seqtok(capsys, "data", "text", f"{tars}/a/*.tar::pipe:cat {tars}/b/c/x-2.tar", *words)
    assert status == 0, err
    assert "learned from 30 samples" in out
    assert CaptionTokenizer.load(tmp_path / "captions.model").sha256 == folder.sha256


def test_who_names_a_stream_says_how_much_of_it_is_read(tars: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("pipe:cat x", f"{tars}/**/*.tar", f"{tars}/a/x-{{0..1}}.tar", "s3://b/x.tar"):
        status, _, err = seqtok(capsys, "data", "text", name)
        assert status == 2
        assert "--samples" in err
    status, _, err = seqtok(capsys, "data", "text", "pipe:cat x", "--samples", 9)
    assert status == 2
    assert "--allow-remote" in err


def test_bad_samples_of_a_stream_that_is_learned_from_are_limited(tmp_path: Path):
    path = str(write_tar(tmp_path / "x.tar", [*foreign_members(0, 8), ("x.txt", b"x"), *foreign_members(8, 2)]))
    with pytest.raises(DataError, match=r"1 samples of 10 cannot be used, .*max_bad_share=0\.02.*x\.tar:x"):
        list(captions_of_stream((path,), 10, Fields()))
    with pytest.warns(UserWarning, match="x: no picture.*left out"):
        assert len(list(captions_of_stream((path,), 10, Fields(), max_bad_share=0.1))) == 10
