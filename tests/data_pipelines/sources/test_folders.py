"""Folders of pictures: sidecar files, class folders, what img2dataset leaves behind."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.base import Bad, Pair
from data_pipelines.sources.open import SourceConfig, detect_kind, open_source
from data_pipelines.sources.records import Fields
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.packed import pack
from tests.data_pipelines.sources.test_tables import everything, opened
from tests.data_pipelines.toy import content, file_bytes, picture, write_tar


def put(folder, files) -> dict[str, bytes]:
    """Files by path; None: a picture of its own."""
    written = {}
    for number, (name, given) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = file_bytes(picture(number, (9, 8 + number))) if given is None else given
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        written[name] = path.read_bytes()
    return written


def test_packed_strings_are_the_strings():
    strings = [b"", b"abc", "ü".encode(), b"", b"\0x"]
    packed = pack(iter(strings))
    assert [packed[n] for n in range(len(packed))] == strings
    assert packed.blob.nbytes + packed.ends.nbytes == sum(map(len, strings)) + 8 * len(strings)
    assert packed.ends.dtype == np.int64


def test_sidecar_files_in_nested_folders(tmp_path):
    files = put(
        tmp_path,
        {
            "b/2.jpg": None,
            "b/2.txt": "a dog\n\n a small dog \r\na small dog on grass\n",
            "b/c/3.PNG": None,
            "b/c/3.json": json.dumps({"captions": ["x", "x y"], "group": "g"}),
            "1.webp": None,
            "1.txt": b"\xef\xbb\xbfcaf\xc3\xa9",
            "1.json": json.dumps({"group": "h", "width": 7}),
            "alone.png": None,
            "README.txt": "not of a picture",
            ".hidden.png": None,
        },
    )
    source = opened(tmp_path, labels=("group",))["train"]
    assert source.kind == "sidecar"
    assert list(source.names(0, 4)) == ["1", "alone", "b/2", "b/c/3"]
    pairs = everything(source)
    assert [pair.captions for pair in pairs] == [
        ("café",),
        (),
        ("a dog", " a small dog ", "a small dog on grass"),
        ("x", "x y"),
    ]
    assert [dict(pair.labels) for pair in pairs] == [{"group": "h"}, {}, {}, {"group": "g"}]
    assert [pair.image for pair in pairs] == [files[n] for n in ("1.webp", "alone.png", "b/2.jpg", "b/c/3.PNG")]
    assert source.identity()["records"]["left_aside"] == {"text_without_picture": 1}


def test_the_whole_text_of_a_sidecar_as_sentences(tmp_path):
    put(tmp_path, {"1.png": None, "1.txt": "A dog.\nIt runs. It is brown."})
    pairs = everything(opened(tmp_path, pyramid="sentences")["train"])
    assert pairs[0].captions == ("A dog.", "A dog.\nIt runs.", "A dog.\nIt runs. It is brown.")


def test_bad_sidecars_are_named_not_fatal(tmp_path):
    bad = {"a.json": "{", "b.json": "[1]", "c.txt": b"\xff\xfe", "d.json": json.dumps({"captions": 7})}
    put(tmp_path, {**bad, "e.txt": "fine", **{f"{name}.png": None for name in "abcdef"}})
    (tmp_path / "f.txt").symlink_to("/etc/hostname")
    found = everything(opened(tmp_path)["train"])
    assert [item.reason if isinstance(item, Bad) else item.captions for item in found] == [
        "KEY.json is not JSON",
        "KEY.json is not an object",
        "KEY.txt or KEY.json is not UTF-8",
        "field 'captions' is not a caption or a list of captions",
        ("fine",),
        "sidecar: path leaves the folder",
    ]


def test_class_folders_make_labels_and_captions(tmp_path):
    put(tmp_path, {"tabby_cat/2.png": None, "dog/1.png": None, "dog/0.jpg": None})
    source = opened(tmp_path)["train"]
    assert source.kind == "classes"
    found = [(pair.source, pair.captions, pair.labels) for pair in everything(source)]
    assert found == [
        ("dog/0.jpg", ("dog",), {"label": "dog"}),
        ("dog/1.png", ("dog",), {"label": "dog"}),
        ("tabby_cat/2.png", ("tabby cat",), {"label": "tabby_cat"}),
    ]
    template = opened(tmp_path, captions=("label", "a photo of a {words}"))["train"]
    assert everything(template)[2].captions == ("tabby_cat", "a photo of a tabby cat")
    manifest = prepare({"train": source}, tmp_path.parent / "out", PrepareConfig(size=8))
    assert manifest.classes == {"label": ("dog", "tabby_cat")}
    assert manifest.levels_made["order"] == "the name of the class, _ read as space"


def test_class_folders_in_folders_of_splits(tmp_path):
    put(tmp_path, {"training/a/1.png": None, "training/b/4.png": None, "valid/a/2.png": None, "valid/b/3.png": None})
    sources = opened(tmp_path)
    assert {split: list(source.names(0, len(source))) for split, source in sources.items()} == {
        "train": ["a/1", "b/4"],
        "val": ["a/2", "b/3"],
    }


def test_pictures_without_captions_or_too_deep_are_no_source(tmp_path):
    put(tmp_path / "flat", {"1.png": None})
    put(tmp_path / "deep", {"a/b/1.png": None, "a/2.png": None})
    put(tmp_path / "none", {"a/notes.md": "x"})
    put(tmp_path / "one", {"images/1.png": None})
    put(tmp_path / "coco", {"train/1.png": None, "other/2.png": None, "annotations/captions.json": "{}"})
    cases = [("flat", "no captions"), ("deep", "deeper.*`kind=classes`"), ("none", "no pictures")]
    cases += [("one", "one folder.*`kind=classes`"), ("coco", r"annotations/captions\.json belongs to no picture")]
    for name, words in cases:
        with pytest.raises(DataError, match=words):
            opened(tmp_path / name)
    assert everything(opened(tmp_path / "deep", kind="classes")["train"])[1].captions == ("a",)


def test_links_and_pipes_are_not_followed(tmp_path):
    put(tmp_path / "other", {"9.png": None})
    put(tmp_path / "set", {"a/1.png": None})
    (tmp_path / "set/b").symlink_to(tmp_path / "other")
    (tmp_path / "set/a/2.png").symlink_to(tmp_path / "other/9.png")
    os.mkfifo(tmp_path / "set/a/3.png")
    source = opened(tmp_path / "set", kind="classes")["train"]
    assert source.identity()["records"]["left_aside"] == {"linked_folders": 1}
    found = everything(source)
    assert isinstance(found[0], Pair)
    assert [item.reason for item in found[1:]] == ["path leaves the folder", "not a file"]


def test_a_changed_folder_is_another_source(tmp_path):
    put(tmp_path, {"a/1.png": None, "b/2.png": None})
    before = opened(tmp_path)["train"].identity()
    assert opened(tmp_path)["train"].identity() == before
    put(tmp_path, {"b/2.png": b"longer than it was" * 99})
    assert opened(tmp_path)["train"].identity() != before


def img2dataset_member(n: int) -> list[tuple[str, bytes]]:
    record = {
        "caption": f"picture {n}",
        "url": f"https://x/{n}",
        "key": f"{n:09d}",
        "status": "success",
        "width": 9 + n,
    }
    data = [("jpg", file_bytes(picture(n), "JPEG")), ("json", json.dumps(record).encode())]
    return [(f"{n:09d}.{ending}", content) for ending, content in [*data, ("txt", record["caption"].encode())]]


def test_what_img2dataset_writes(tmp_path):
    """Tars: each with a table and statistics of the same name. Files: the same as a folder per shard."""
    members = [img2dataset_member(n) for n in range(4)]
    for shard in range(2):
        write_tar(tmp_path / f"tars/{shard:05d}.tar", members[2 * shard] + members[2 * shard + 1])
        put(tmp_path, {f"tars/{shard:05d}.parquet": b"a table", f"tars/{shard:05d}_stats.json": "{}"})
        put(tmp_path, {f"files/{shard:05d}.parquet": b"a table", f"files/{shard:05d}_stats.json": "{}"})
        put(tmp_path / f"files/{shard:05d}", dict(members[2 * shard] + members[2 * shard + 1]))
    for name, kind in (("tars", "tars"), ("files", "sidecar")):
        source = opened(tmp_path / name)["train"]
        assert source.kind == kind
        pairs = everything(source)
        assert [pair.captions for pair in pairs] == [(f"picture {n}",) for n in range(4)]
        assert [pair.image for pair in pairs] == [member[0][1] for member in members]
        wide = opened(tmp_path / name, where=("width>=11",))["train"]
        assert [pair.captions for pair in everything(wide)] == [("picture 2",), ("picture 3",)]
    columns = {name: [json.loads(member[1][1])[name] for member in members] for name in ("url", "key", "caption")}
    (tmp_path / "tables").mkdir()
    table = pa.table({**columns, "jpg": [member[0][1] for member in members]})
    pq.write_table(table, tmp_path / "tables/00000.parquet")
    source = opened(tmp_path / "tables")["train"]
    assert [pair.image for pair in everything(source)] == [member[0][1] for member in members]
    assert list(source.names(0, 4)) == [f"{n:09d}" for n in range(4)]


def test_options_that_a_kind_has_no_use_for_are_refused(tmp_path):
    write_tar(tmp_path / "t/train-0.tar", img2dataset_member(0))
    for config in (SourceConfig(images=tmp_path), SourceConfig(fields=Fields(image="jpg"))):
        with pytest.raises(ConfigError, match="leave it out"):
            open_source(tmp_path / "t", config)
    with pytest.raises(ConfigError, match=r"did you mean caption\?"):
        opened(tmp_path / "t", captions="captoin")


def test_kinds_are_recognised(tmp_path):
    put(tmp_path, {"p/1.png": None, "p/1.txt": "x", "c/t.csv": "a,b\n1,2\n", "m/metadata.jsonl": "{}", "m/1.png": None})
    assert [detect_kind(tmp_path / name) for name in ("p", "c", "m", "c/t.csv")] == ["pictures", "csv", "jsonl", "csv"]


def test_every_kind_of_source_gives_the_same_bytes_from_two_processes(tmp_path):
    images = [file_bytes(picture(n, (9, 9))) for n in range(12)]
    put(
        tmp_path / "sidecar",
        {f"{n}.{e}": data for n, image in enumerate(images) for e, data in (("png", image), ("txt", "x"))},
    )
    put(tmp_path / "classes", {f"{'ab'[n % 2]}/{n}.png": image for n, image in enumerate(images)})
    put(tmp_path / "csv", {f"{n}.png": image for n, image in enumerate(images)})
    (tmp_path / "csv/t.csv").write_text("path,caption,n\n" + "".join(f"{n}.png,picture {n},{n}\n" for n in range(12)))
    (tmp_path / "parquet").mkdir()
    table = pa.table({"image": images, "text": [f"picture {n}" for n in range(12)]})
    pq.write_table(table, tmp_path / "parquet/t.parquet", row_group_size=5)
    write_tar(tmp_path / "tars/a.tar", [member for n in range(12) for member in img2dataset_member(n)])
    kinds = ("sidecar", "classes", "parquet", "tars")
    sources = {kind: opened(tmp_path / kind)["train"] for kind in kinds}
    sources["csv"] = opened(tmp_path / "csv", where=("n>=3",))["train"]
    for name, processes in (("one", 1), ("two", 2)):
        config = PrepareConfig(size=8, samples_per_shard=4, processes=processes)
        manifest = prepare(sources, tmp_path / name, config)
    assert {split: info.samples for split, info in manifest.splits.items()} == {**dict.fromkeys(kinds, 12), "csv": 9}
    assert content(tmp_path / "one") == content(tmp_path / "two")
