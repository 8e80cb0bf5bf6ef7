"""A .json that holds all records: the common shapes are read, the others' structure is named."""

from __future__ import annotations

import json

import pytest

from data_pipelines.sources.base import Bad
from data_pipelines.sources.open import SourceConfig, detect_kind, open_source
from data_pipelines.sources.records import BY_WORDS
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.sources.test_tables import everything, opened, picture_table

SAID = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "<image>\na dog"}]
MORE = [{"from": "human", "value": "And?"}, {"from": "gpt", "value": "it runs"}]
PARTS = [{"type": "image"}, {"type": "text", "text": "a dog"}]


def named(n: int, **more: object) -> dict[str, object]:
    return {"image": f"images/p{n}.png", **more}


LISTS = [named(n, caption=f"no {n}", extra={"a": [n]}) for n in range(3)]
SHAPES = {
    "list": (LISTS, [("no 0",), ("no 1",), ("no 2",)]),
    "under a key": ({"info": {"x": 1}, "data": LISTS}, [("no 0",), ("no 1",), ("no 2",)]),
    "lists of captions": ([named(0, captions=["a", "a b"])], [("a", "a b")]),
    "by file": ({"images/p0.png": "a dog", "images/p1.png": ["a", "a cat"]}, [("a dog",), ("a", "a cat")]),
    "llava": ([named(0, id="x", conversations=SAID + MORE)], [("a dog", "it runs")]),
    "roles": ([named(0, messages=[{"role": "user", "content": PARTS}, {"role": "assistant", "content": PARTS}])], None),
    "lists of one picture": ([{"images": ["images/p0.png"], "caption": "a dog"}], [("a dog",)]),
}


def put(path, value):
    path.write_text(json.dumps(value, indent=1 if len(str(value)) % 2 else None))
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_records_of_every_shape(tmp_path, shape):
    images = picture_table(tmp_path)
    value, captions = SHAPES[shape]
    path = put(tmp_path / "chat.json", value)
    assert detect_kind(path) == detect_kind(tmp_path) == "json"
    for where in (path, tmp_path):
        pairs = everything(opened(where)["train"])
        assert [pair.captions for pair in pairs] == (captions or [("a dog",)])
        assert [pair.image for pair in pairs] == images[: len(pairs)]


def test_splits_by_karpathy(tmp_path):
    picture_table(tmp_path / "val2014", 4)
    splits = ["train", "restval", "val", "test"]
    sentences = [{"raw": "a dog runs", "tokens": ["a"]}, {"raw": "a dog"}, {"raw": None}]
    records = [
        {"filepath": "val2014/images", "filename": f"p{n}.png", "split": splits[n], "sentences": sentences}
        for n in range(4)
    ]
    path = put(tmp_path / "dataset_coco.json", {"dataset": "coco", "images": records})
    sources = opened(path)
    assert {name: len(source) for name, source in sources.items()} == {"train": 2, "val": 1, "test": 1}
    assert [pair.captions for pair in everything(sources["train"])] == [("a dog", "a dog runs")] * 2
    assert sources["val"].facts().levels_made["order"] == BY_WORDS
    assert list(sources["val"].names(0, 1)) == ["val2014/images/p2"]


def test_conversations_without_a_picture_are_counted_and_of_several_named(tmp_path):
    picture_table(tmp_path)
    both = {"image": ["images/p0.png", "images/p1.png"], "conversations": SAID}
    put(tmp_path / "chat.json", [{"id": "t", "conversations": MORE}, named(0, conversations=SAID), both])
    source = opened(tmp_path / "chat.json")["train"]
    assert source.identity()["records"]["left_aside"] == {"conversations_without_picture": 1}
    good, bad = everything(source)
    assert good.captions == ("a dog",)
    assert isinstance(bad, Bad)
    assert (bad.source, bad.reason) == ("chat.json record 2", "several pictures")
    put(tmp_path / "chat.json", [both])
    assert everything(opened(tmp_path / "chat.json", image="image[1]")["train"])[0].source == "images/p1.png"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": 1, "b": {"c": [1]}}, r"structure is not known: an object \(a, b\); a is a number; b is an object \(c\)"),
        ([1, 2], r"a list of 2: a number"),
        ([["x.png", "a dog"]], r"a list of 1: a list of 2: text"),
        ({"train": LISTS, "val": LISTS}, r"train is a list of 3: an object \(image, caption, extra\)"),
        ([], "holds no records"),
        ("text", "structure is not known: text"),
    ],
)
def test_other_shapes_are_named_with_the_way_out(tmp_path, value, words):
    with pytest.raises(DataError, match=words) as error:
        opened(put(tmp_path / "t.json", value))
    assert "JSON Lines" in str(error.value) or value == []


def test_what_belongs_to_a_picture_or_is_no_list_of_captions_is_no_table(tmp_path):
    picture_table(tmp_path)
    (tmp_path / "images/p0.txt").write_text("beside it")
    put(tmp_path / "all.json", LISTS)
    assert detect_kind(tmp_path) == "pictures", "what lies beside pictures counts"
    (tmp_path / "images/p0.txt").unlink()
    put(tmp_path / "all.json", {"license": "cc0"})
    assert detect_kind(tmp_path) == "pictures"
    put(tmp_path / "all.json", LISTS)
    put(tmp_path / "more.json", LISTS)
    assert detect_kind(tmp_path) == "pictures", "two of them: which one?"
    for n in range(30):
        put(tmp_path / f"{n}.json", {"n": n})
    (tmp_path / "more.json").unlink()
    assert detect_kind(tmp_path) == "pictures", "a file for each picture"


def test_coco_stays_coco_and_is_found_alone_in_a_folder(tmp_path):
    picture_table(tmp_path)
    images = [{"id": n, "file_name": f"p{n}.png"} for n in range(3)]
    notes = [{"id": n, "image_id": n, "caption": f"no {n}"} for n in range(3)]
    path = put(tmp_path / "captions.json", {"images": images, "annotations": notes})
    assert detect_kind(path) == detect_kind(tmp_path) == "coco"
    assert [pair.captions for pair in everything(open_source(tmp_path, SourceConfig())["train"])] == [
        (f"no {n}",) for n in range(3)
    ]
    with pytest.raises(DataError, match="looks like COCO"):
        opened(path, kind="json")
    with pytest.raises(ConfigError, match="`split_field` has no use"):
        open_source(path, SourceConfig(split_field="split"))
