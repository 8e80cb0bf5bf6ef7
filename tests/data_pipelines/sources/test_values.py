"""Fields by their paths, and the texts that they hold, in every kind of source."""

from __future__ import annotations

import json
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.sources.base import Bad
from data_pipelines.sources.open import SourceConfig, open_source
from data_pipelines.sources.records import Fields
from data_pipelines.sources.values import base_of, texts_of, value_at
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.sources.test_tables import everything, opened, picture_table
from tests.data_pipelines.toy import file_bytes, picture, write_tar

NAMES = st.text("abc.", min_size=1, max_size=4).filter(lambda name: name.strip(".") == name)
RECORD = {
    "a": {"b": {"c": 1}, "b.c": 2, "list": [{"x": 3}, {"x": None}, {"y": 4}]},
    "a.b": 5,
    "texts": ["one", "two"],
    "json": '{"caption": "inside", "tags": ["p", "q"]}',
    "no": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b", 5),
        ("a.b.c", None),
        ("a.list[0].x", 3),
        ("a.list[-1].y", 4),
        ("a.list.x", [3]),
        ("a.list[].x", [3]),
        ("a.list[3].x", None),
        ("texts[1]", "two"),
        ("texts[]", ["one", "two"]),
        ("json.caption", "inside"),
        ("json.tags[1]", "q"),
        ("json.none", None),
        ("no.thing", None),
        ("texts.x", None),
    ],
)
def test_a_path_leads_to_what_is_there(path, value):
    assert value_at(RECORD, path) == value


@given(st.dictionaries(NAMES, st.integers(), min_size=1))
def test_a_field_whose_name_exists_comes_before_any_path(record):
    for name, value in record.items():
        assert base_of(name, record) == name
        assert value_at(record, name) == value
        assert value_at({"top": record}, f"top.{name}") == value


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, []),
        (float("nan"), []),
        ("a dog", ["a dog"]),
        (["a", "b c"], ["a", "b c"]),
        ('["a", "b c"]', ["a", "b c"]),
        ("['a', \"it's b\"]", ["a", "it's b"]),
        ("[laughs]", ["[laughs]"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[]", ["[]"]),
        ([{"raw": "a", "id": 1}, {"raw": "b", "id": 2}], ["a", "b"]),
        ([{"caption": "a"}], ["a"]),
        ([{"from": "human", "value": "q"}, {"from": "gpt", "value": "<image>\na"}], ["a"]),
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], ["a"]),
    ],
)
def test_texts_of_what_a_field_holds(value, texts):
    assert texts_of(value, "f") == texts


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ({"short": "a"}, "f.short"),
        ([{"words": 1, "said": "b"}], "f.said"),
        (7, "a number"),
        ([1], "a list of 1"),
        ("['a dog' 'a cat']", "numpy"),
    ],
)
def test_what_is_no_text_is_one_reason_and_says_what_it_is(value, detail):
    with pytest.raises(DataError, match="field 'f' is not a caption or a list of captions") as error:
        texts_of(value, "f")
    assert detail in error.value.detail


def records(images):
    for n, data in enumerate(images):
        yield {
            "meta": {"caption": f"no {n}", "kind": "toy", "path": f"images/p{n}.png"},
            "jpg": data,
            "images": [{"bytes": data, "path": None}],
            "texts": [{"short": f"{n}", "long": f"no {n} long"}],
            "meta.caption.en": f"dotted {n}",
        }


def test_paths_into_parquet_and_json_lines(tmp_path):
    images = picture_table(tmp_path)
    rows = list(records(images))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=4)
    for row in rows:
        del row["jpg"], row["images"]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, image in (("parquet", "jpg"), ("parquet", "images[0]"), ("jsonl", "meta.path"), ("parquet", "meta.path")):
        captions = ("meta.kind", "texts.short", "meta.caption.en", "{meta.caption} in {meta.kind}")
        sources = opened(
            tmp_path / f"t.{name}", image=image, captions=captions, labels=("meta.kind",), where=("meta.caption!=no 3",)
        )
        pairs = everything(sources["train"])
        assert [pair.image for pair in pairs] == [*images[:3], *images[4:]]
        assert pairs[1].captions == ("toy", "1", "dotted 1", "no 1 in toy")
        assert pairs[1].labels == {"meta.kind": "toy"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"captions": "meta.captoin"}, r"nothing is at 'meta.captoin'.*meta is an object \(caption, kind, path\)"),
        ({"captions": "texts.middle"}, r"nothing is at 'texts.middle'.*list of 1: an object \(short, long\)"),
        ({"captions": "meta.caption.t"}, r"nothing is at 'meta.caption.t'"),
        ({"captions": "mta.caption"}, r"no field 'mta.caption'.*did you mean"),
        ({"image": "images[1]"}, r"nothing is at 'images\[1\]'"),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error_before_anything_is_written(tmp_path, fields, words):
    rows = list(records(picture_table(tmp_path)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=words):
        opened(tmp_path / "t.parquet", **{"image": "jpg", "captions": "meta.caption", **fields})


def test_paths_into_records_of_tars(tmp_path):
    record = json.dumps({"meta": {"caption": "inside"}}).encode()
    write_tar(tmp_path / "a.tar", [("k.png", file_bytes(picture())), ("k.json", record)])
    (pair,) = everything(opened(tmp_path / "a.tar", captions="meta.caption")["train"])
    assert pair.captions == ("inside",)


@pytest.mark.parametrize("said", ["", "  ", [], None])
def test_an_empty_caption_gives_way_to_the_text_beside_it(tmp_path, said):
    image, record = file_bytes(picture()), json.dumps({"caption": said, "group": 1}).encode()
    members = [("k.png", image), ("k.json", record), ("k.txt", b"a dog")]
    write_tar(tmp_path / "tars" / "a.tar", members)
    (tmp_path / "folder").mkdir()
    for name, data in members:
        (tmp_path / "folder" / name).write_bytes(data)
    for folder in ("tars", "folder"):
        (pair,) = everything(open_source(tmp_path / folder, SourceConfig(fields=Fields(labels=("group",))))["train"])
        assert (pair.captions, pair.labels) == (("a dog",), {"group": 1})


def test_addresses_of_this_machine_are_paths_inside_the_folder(tmp_path):
    images = picture_table(tmp_path / "my set %41")
    folder = tmp_path / "my set %41"
    (tmp_path / "secret.png").write_bytes(images[0])
    forms = [
        f"file://{quote(str(folder))}/images/p0.png",
        f"file://localhost{quote(str(folder))}/images/p1.png",
        f"FILE:{quote(str(folder))}/images/p2.png",
        f"file://{quote(str(tmp_path))}/secret.png",
        "file://elsewhere/p0.png",
        "images\\p3.png",
        "..\\secret.png",
    ]
    lines = [json.dumps({"path": form, "caption": "x"}) for form in ["images/p5.png", *forms]]
    (folder / "t.jsonl").write_text("\n".join([lines[0], *lines[1:5], *lines[6:]]))
    found = everything(opened(folder / "t.jsonl")["train"])
    said = [item.reason if isinstance(item, Bad) else item.image for item in found]
    assert said == [images[5], *images[:3], "path leaves the folder", images[3], "path leaves the folder"]
    (folder / "t.jsonl").write_text(lines[5])
    with pytest.raises(DataError, match="holds addresses"):
        opened(folder / "t.jsonl")


def test_class_numbers_are_words_where_features_name_them(tmp_path):
    images = picture_table(tmp_path)
    label = {"_type": "ClassLabel", "names": ["emu", "cat", "dog"]}
    features = {"image": {"_type": "Image"}, "kind": label, "kinds": {"_type": "Sequence", "feature": label}}
    columns = {"image": images, "kind": [2, 0, -1, 1, None, 2], "kinds": [[0, 2]] * 6, "other": [1] * 6}
    table = pa.table(columns).replace_schema_metadata(
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    source = opened(tmp_path / "t.parquet", captions="kinds", labels=("kind", "other"))["train"]
    pairs = everything(source)
    assert [pair.labels.get("kind") for pair in pairs] == ["dog", "emu", None, "cat", None, "dog"]
    assert {pair.labels["other"] for pair in pairs} == {1}
    assert pairs[0].captions == ("emu", "dog")
    assert source.identity()["records"]["class_names"]["kind"] == ["emu", "cat", "dog"]
    assert len(opened(tmp_path / "t.parquet", captions="a {kind}", where=("kind=dog",))["train"]) == 2
    plain = opened(tmp_path / "t.parquet", captions="", labels=("other",))["train"]
    assert "class_names" not in plain.identity()["records"], "as it was where no class is asked for"


@pytest.mark.parametrize("header", ["first,second", ",first,second"])
def test_a_message_names_columns_that_have_names(tmp_path, header):
    (tmp_path / "t.csv").write_text(f"{header}\n{header}\n")
    with pytest.raises(ConfigError, match=r"there are first, second$"):
        opened(tmp_path / "t.csv")
