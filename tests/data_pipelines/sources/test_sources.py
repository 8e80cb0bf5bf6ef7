"""Sources: the forms in which people have their pictures, read as they are, faults named."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.sources.base import Bad, Pair
from data_pipelines.sources.derived.cut import split_by_name
from data_pipelines.sources.drawn import ScenesSource
from data_pipelines.sources.file_sources import coco_source, folder_source
from data_pipelines.sources.open import SourceConfig, detect_kind, open_source
from data_pipelines.sources.records import Fields, labels_of
from data_pipelines.sources.tar_source import tar_source, tar_sources
from data_pipelines.tars.folders import split_of
from data_pipelines.tars.index import scan_tar, split_name
from data_pipelines.tars.names import find_tars
from data_pipelines.tars.stream import stream_samples
from data_pipelines.tars.walk import walk_tar
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.toy import file_bytes, foreign_members, jsonl_folder, picture, write_tar


def everything(source) -> list[Pair | Bad]:
    return list(source.pairs(0, len(source)))


def test_any_piece_of_a_source_is_the_same_whoever_reads_it():
    source = ScenesSource("train", 10, 16)
    whole = [pair.captions for pair in everything(source)]
    pieces = [pair.captions for start in (0, 3, 7) for pair in source.pairs(start, min(start + 4, 10))]
    assert pieces == whole[0:4] + whole[3:7] + whole[7:10]


def test_a_folder_with_captions_jsonl(tmp_path):
    source = folder_source(jsonl_folder(tmp_path / "f"), Fields(labels=("group", "number")))
    pairs = everything(source)
    assert len(source) == 12
    assert pairs[1].captions == (
        "level 0 of picture 1",
        "level 1 of picture 1",
        "level 2 of picture 1",
        "level 3 of picture 1",
    )
    assert pairs[1].labels == {"group": "b", "number": 1}
    assert pairs[1].image == (tmp_path / "f/images/p 1.png").read_bytes()


def test_bad_lines_and_files_are_named_not_fatal(tmp_path):
    folder = jsonl_folder(tmp_path / "f", 3)
    bad = [
        "{not json",
        "[1]",
        '{"captions": ["x"]}',
        '{"file_name": "../../secret.png", "captions": ["x"]}',
        '{"file_name": "/etc/hostname", "captions": ["x"]}',
        '{"file_name": "images/absent.png", "captions": ["x"]}',
        '{"file_name": "images/p 0.png", "captions": 7}',
        '{"file_name": "images/p 0.png", "captions": ["x"], "group": [1]}',
    ]
    with open(folder / "captions.jsonl", "a") as stream:
        stream.write("\n".join(bad) + "\n")
    found = everything(folder_source(folder, Fields(labels=("group",))))
    assert [isinstance(item, Bad) for item in found] == [False] * 3 + [True] * 8
    assert "line 4" in found[3].source
    assert {item.reason for item in found[6:8]} == {"path leaves the folder"}
    assert found[8].reason == "file cannot be read"
    assert "not a caption" in found[9].reason
    assert "label field 'group'" in found[10].reason


def coco(folder, **changes) -> dict:
    content = {
        "images": [{"id": 5, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 5, "id": 0, "caption": "a long one indeed"},
            {"image_id": 9, "id": 1, "caption": "only"},
            {"image_id": 5, "id": 2, "caption": " short "},
            {"image_id": 77, "id": 3, "caption": "of no image"},
        ],
    } | changes
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name in "ab":
        (folder / "images" / f"{name}.png").write_bytes(file_bytes(picture()))
    (folder / "captions.json").write_text(json.dumps(content))
    return content


def test_coco_captions_are_sorted_by_length(tmp_path):
    coco(tmp_path)
    pairs = everything(coco_source(tmp_path / "captions.json"))
    assert [pair.captions for pair in pairs] == [("short", "a long one indeed"), ("only",)]


def test_a_coco_file_that_is_none_or_without_pictures(tmp_path):
    coco(tmp_path, annotations=[{"id": 1}])
    with pytest.raises(DataError, match="not in the form of COCO"):
        coco_source(tmp_path / "captions.json")
    coco(tmp_path, images=[{"id": 5, "file_name": "gone.png"}])
    with pytest.raises(DataError, match=r"gone\.png.*`images`"):
        coco_source(tmp_path / "captions.json")
    (tmp_path / "captions.json").write_text("{")
    with pytest.raises(DataError, match=r"captions\.json"):
        coco_source(tmp_path / "captions.json")


def test_tars_name_their_splits(tmp_path):
    for name in ("train-00000.tar", "train-00001.tar", "my_val-0.tar", "x-test-000000.tar", "other.tar"):
        write_tar(tmp_path / name, foreign_members(0, 1))
    found = {split: [p.name for p in paths] for split, paths in find_tars(tmp_path).items()}
    assert found == {
        "train": ["other.tar", "train-00000.tar", "train-00001.tar"],
        "val": ["my_val-0.tar"],
        "test": ["x-test-000000.tar"],
    }
    assert split_of("coco-validation-3.tar") == "val"


def test_a_tar_is_read_where_it_lies(tmp_path):
    members = foreign_members(0, 4)
    write_tar(tmp_path / "train-0.tar", members)
    fields = Fields(labels=("group", "year"))
    pairs = everything(tar_sources(tmp_path, fields)["train"])
    assert [pair.image for pair in pairs] == [data for name, data in members if name.endswith("jpg")]
    assert pairs[3].captions == ("coarse 0", "fine 3")
    assert pairs[3].labels == {"group": "g3", "year": 2003}


def test_a_text_member_is_the_caption_where_there_is_no_record(tmp_path):
    image = file_bytes(picture())
    write_tar(tmp_path / "a.tar", [("k.png", image), ("k.txt", b"a dog")])
    assert everything(tar_sources(tmp_path, Fields())["train"])[0].captions == ("a dog",)


@given(cut=st.integers(0, 20 * 512 + 700))
def test_a_cut_tar_is_always_noticed(tmp_path_factory, cut):
    """Wherever it is cut: python's tarfile says nothing when that is between two members."""
    path = tmp_path_factory.mktemp("t") / "train-0.tar"
    whole = write_tar(path, [(f"k{n}.txt", b"x" * 100 * n) for n in range(6)]).read_bytes()
    end = whole.rstrip(b"\0")
    full = (len(end) + 511) // 512 * 512 + 1024
    path.write_bytes(whole[:cut])
    if cut >= full:
        assert len(scan_tar(path)) == 6
        return
    with pytest.raises(DataError, match=r"train-0\.tar"):
        scan_tar(path)


def test_a_damaged_header_is_noticed(tmp_path):
    path = write_tar(tmp_path / "a.tar", [(f"k{n}.txt", b"x" * 100) for n in range(6)])
    data = bytearray(path.read_bytes())
    data[2 * 1024 : 2 * 1024 + 20] = b"\xff" * 20
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        scan_tar(path)


def test_keys_that_come_twice_are_refused(tmp_path):
    for members in (["a.txt", "b.txt", "a.txt"], ["a.txt", "b.txt", "a.json"], ["a.txt", "a.txt"]):
        path = write_tar(tmp_path / "a.tar", [(name, b"x") for name in members])
        with pytest.raises(DataError, match="twice"):
            scan_tar(path)


@pytest.mark.parametrize("padding", [0, 1024, 9 * 1024 + 512])
def test_joined_tars_are_read_to_the_end(tmp_path, padding):
    """`cat a.tar b.tar c.tar`: every way of reading goes on behind the blocks that close the first."""
    parts = [write_tar(tmp_path / f"{n}.tar", foreign_members(3 * n, 3)).read_bytes() for n in range(3)]
    parts = [part.rstrip(b"\0") for part in parts]
    closed = [part + bytes(-len(part) % 512 + 1024 + padding) for part in parts]
    whole = tmp_path / "joined" / "train-0.tar"
    whole.parent.mkdir()
    whole.write_bytes(b"".join(closed))
    samples = scan_tar(whole)
    assert len(samples) == 9
    walk = walk_tar(whole)
    assert (walk.samples, walk.problems) == (samples, [])
    content = whole.read_bytes()
    streamed = dict(stream_samples(str(whole), ("jpg", "json")))
    assert list(streamed) == [sample.key for sample in samples]
    for sample in samples:
        for extension, (start, size) in sample.members.items():
            looked_at = None if extension == "txt" else content[start : start + size]
            assert streamed[sample.key][extension] == looked_at
    assert len(everything(tar_sources(whole.parent, Fields())["train"])) == 9


def test_what_follows_a_tar_and_is_none_is_noticed(tmp_path):
    path = write_tar(tmp_path / "train-0.tar", foreign_members(0, 3))
    whole = path.read_bytes()
    keys = [sample.key for sample in scan_tar(path)]
    for length in (1, 511):  # no header: nothing can be lost there
        path.write_bytes(whole + b"\n" * length)
        assert [sample.key for sample in scan_tar(path)] == keys
        assert [key for key, _ in stream_samples(str(path), ("jpg",))] == keys
        assert walk_tar(path).problems == []
    for length in (512, 9000):
        path.write_bytes(whole + b"x" * length)
        with pytest.raises(DataError, match=f"followed by what is no tar at byte {len(whole)}"):
            scan_tar(path)
        with pytest.raises(DataError, match=f"followed by what is no tar at byte {len(whole)}"):
            list(stream_samples(str(path), ("jpg",)))
        assert f"from byte {len(whole)} of {len(whole) + length} on, is no tar" in walk_tar(path).problems[0]
    joined = path.with_name("train-1.tar")
    whole = write_tar(tmp_path / "b.tar", foreign_members(3, 3)).read_bytes()
    joined.write_bytes(whole + whole[:1500])
    with pytest.raises(DataError, match=r"train-1\.tar"):
        scan_tar(joined)


def test_what_a_system_leaves_in_a_tar_is_no_sample_and_counted(tmp_path):
    members = foreign_members(0, 3)
    litter = [("._000.jpg", b"x"), ("__MACOSX/a/._b.jpg", b"x"), (".DS_Store", b"x"), ("d/Thumbs.db", b"x")]
    path = write_tar(tmp_path / "train-0.tar", [litter[0], *members[:4], *litter[1:3], *members[4:], litter[3]])
    clean = write_tar(tmp_path / "clean" / "train-0.tar", members)
    assert [sample.key for sample in scan_tar(path)] == [sample.key for sample in scan_tar(clean)]
    assert walk_tar(path).ignored == 4
    assert walk_tar(path).problems == []
    assert list(stream_samples(str(path), ("jpg",))) == list(stream_samples(str(clean), ("jpg",)))
    source = tar_sources(path, Fields())["train"]
    assert source.identity()["left_aside"] == {"litter_of_a_system": 4}
    assert "left_aside" not in tar_sources(clean, Fields())["train"].identity()


def test_damaged_shards_are_an_error_or_skipped_and_named(tmp_path):
    good = write_tar(tmp_path / "train-0.tar", foreign_members(0, 3))
    bad = write_tar(tmp_path / "train-1.tar", foreign_members(3, 3))
    bad.write_bytes(bad.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"train-1\.tar"):
        tar_source([good, bad], Fields())
    source = tar_source([good, bad], Fields(), "skip")
    assert len(source) == 3
    assert "train-1.tar" in source.skipped["train-1.tar"]
    assert source.identity()["skipped"] == ["train-1.tar"]
    with pytest.raises(DataError, match="no samples"):
        tar_source([bad], Fields(), "skip")


def test_member_names_split_as_webdataset_does():
    from seqtok_core.foundation.compat import import_webdataset

    base_plus_ext = import_webdataset().tariterators.base_plus_ext
    for name in ("a.png", "d/e.f/g.seg.png", "a.b.c", "./x.jpg"):
        assert split_name(name) == base_plus_ext(name)


def test_shares_are_disjoint_complete_and_stable():
    source = ScenesSource("train", 400, 16)
    parts = split_by_name(source, {"val": 0.1, "test": 0.2})
    indices = {split: set(part.indices.tolist()) for split, part in parts.items()}
    assert sorted(i for found in indices.values() for i in found) == list(range(400))
    assert 20 < len(indices["val"]) < 60
    grown = split_by_name(ScenesSource("train", 500, 16), {"val": 0.1, "test": 0.2})
    assert all(found <= set(grown[split].indices.tolist()) for split, found in indices.items())
    with pytest.raises(ConfigError, match="shares"):
        split_by_name(source, {"val": 0.6, "test": 0.5})


def test_the_split_that_is_asked_for_counts_more_than_a_name(tmp_path):
    for name in ("my_test_images.csv", "a/train.csv", "a/more.csv", "a/val.csv", "b/val-0.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("csv"):
            (tmp_path / name).write_text(f"image,caption\n{name}.png,a dog\n")
    write_tar(tmp_path / "b" / "val-0.tar", foreign_members(0, 3))
    table, folder = tmp_path / "my_test_images.csv", tmp_path / "a"
    fields = Fields(image="image")
    assert list(open_source(table, SourceConfig(fields=fields))) == ["test"]
    assert list(open_source(table, SourceConfig(fields=fields, split="train"))) == ["train"]
    assert list(open_source(tmp_path / "b", SourceConfig(split="train"))) == ["train"]
    for split in (None, "train"):
        found = open_source(folder, SourceConfig(fields=fields, split=split))
        assert {name: len(source) for name, source in found.items()} == {"train": 2, "val": 1}
    found = open_source(folder, SourceConfig(fields=fields, split="extra"))
    assert {name: len(source) for name, source in found.items()} == {"extra": 1, "train": 1, "val": 1}
    (folder / "more.csv").unlink()
    with pytest.raises(ConfigError, match=r"say their splits \(train, val\); leave out `split`"):
        open_source(folder, SourceConfig(fields=fields, split="extra"))


def test_a_path_says_what_it_is(tmp_path):
    jsonl_folder(tmp_path / "folder")
    write_tar(tmp_path / "tars/train-0.tar", foreign_members(0, 1))
    coco(tmp_path / "coco")
    assert detect_kind(tmp_path / "folder") == "folder"
    assert detect_kind(tmp_path / "tars") == detect_kind(tmp_path / "tars/train-0.tar") == "tars"
    assert detect_kind(tmp_path / "coco/captions.json") == "coco"
    assert set(open_source(tmp_path / "folder", SourceConfig(val_share=0.3))) == {"train", "val"}
    write_tar(tmp_path / "tars/val-0.tar", foreign_members(0, 1))
    for path, words in ((tmp_path / "nowhere", "no such"), (tmp_path, "not a source")):
        with pytest.raises(DataError, match=words):
            open_source(path, SourceConfig())
    with pytest.raises(ConfigError, match="say their splits"):
        open_source(tmp_path / "tars", SourceConfig(val_share=0.3))


def test_class_numbers_stay_the_numbers_that_they_are(tmp_path):
    image = file_bytes(picture())
    labels = ["0", "10\n", "2", "-1", "dog", "1e3"]
    members = [(f"k{n}.{e}", d) for n, text in enumerate(labels) for e, d in (("png", image), ("cls", text.encode()))]
    write_tar(tmp_path / "a.tar", [*members, ("k9.png", image)])
    pairs = everything(tar_sources(tmp_path, Fields(labels=("cls",)))["train"])
    assert [pair.labels.get("cls") for pair in pairs] == [0, 10, 2, -1, "dog", "1e3", None]


@pytest.mark.parametrize(
    ("value", "label"),
    [(3, {"c": 3}), (3.0, {"c": 3}), (float("nan"), {}), (None, {}), ("3", {"c": "3"}), (True, {"c": 1})],
)
def test_labels_are_numbers_or_words(value, label):
    assert labels_of({"c": value}, Fields(labels=("c",))) == label


def test_a_label_that_is_neither_is_named():
    for value in (3.5, [1], {"a": 1}):
        with pytest.raises(DataError, match=f"label field 'c' holds {type(value).__name__}"):
            labels_of({"c": value}, Fields(labels=("c",)))


def coco_file(folder, images, notes):
    folder.mkdir(parents=True, exist_ok=True)
    for _, name in images:
        (folder / name).write_bytes(file_bytes(picture()))
    content = {
        "images": [{"id": number, "file_name": name} for number, name in images],
        "annotations": [{"image_id": number, "caption": text} for number, text in notes],
    }
    (folder / "captions.json").write_text(json.dumps(content))
    return folder / "captions.json"


def test_a_coco_id_of_two_pictures_is_an_error_that_names_both(tmp_path):
    path = coco_file(tmp_path, [(1, "a.png"), (2, "b.png"), (1, "c.png")], [(1, "a dog"), (2, "a cat")])
    with pytest.raises(DataError, match=r"id 1 names two pictures, a\.png and c\.png"):
        coco_source(path)
    again = coco_file(tmp_path / "same", [(1, "a.png"), (1, "a.png"), (2, "b.png")], [(1, "a dog"), (2, "a cat")])
    assert [pair.captions for pair in everything(coco_source(again))] == [("a dog",), ("a dog",), ("a cat",)]


def test_annotations_that_are_no_caption_of_a_picture_are_counted(tmp_path):
    notes = [(1, "a dog"), (2, None), (2, "a cat"), (3, "a bird"), (4, "a cow"), (1, 7)]
    source = coco_source(coco_file(tmp_path, [(1, "a.png"), (2, "b.png")], notes))
    assert [pair.captions for pair in everything(source)] == [("a dog",), ("a cat",)]
    counted = {"annotations_of_no_image": 2, "captions_that_are_no_text": 2}
    assert source.identity()["records"]["left_aside"] == counted
    clean = coco_source(coco_file(tmp_path / "clean", [(1, "a.png")], [(1, "a dog")]))
    assert "left_aside" not in clean.identity()["records"]


def test_gzipped_tars_are_refused_by_name_and_never_left_out(tmp_path):
    good = write_tar(tmp_path / "000000.tar", foreign_members(0, 3))
    packed = gzip.compress(good.read_bytes())
    (tmp_path / "000001.tar.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"000001\.tar\.gz: compressed with gzip"):
        open_source(tmp_path, SourceConfig())
    good.unlink()
    with pytest.raises(DataError, match=r"000001\.tar\.gz: compressed with gzip"):
        open_source(tmp_path, SourceConfig())
    (tmp_path / "000001.tar.gz").rename(tmp_path / "000001.tar")
    for path in (tmp_path, tmp_path / "000001.tar"):
        with pytest.raises(DataError, match=r"000001\.tar: compressed with gzip, whatever its name says"):
            open_source(path, SourceConfig())


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPG", "tif", "tiff", "jp2", "ppm", "avif"])
def test_a_picture_is_what_its_content_says(tmp_path, ending):
    image = file_bytes(picture())
    write_tar(tmp_path / "tars" / "a.tar", [(f"k.{ending}", image), ("k.txt", b"a dog")])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"k.{ending}").write_bytes(image)
    (tmp_path / "folder" / "k.txt").write_text("a dog")
    for folder in ("tars", "folder"):
        (pair,) = everything(open_source(tmp_path / folder, SourceConfig())["train"])
        assert pair.image == image
