"""Rows of one picture are one sample, wherever they lie; a column says the splits."""

from __future__ import annotations

import json
import pickle
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.base import Bad
from data_pipelines.sources.open import SourceConfig, open_source
from data_pipelines.sources.records import BY_WORDS, Fields
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.sources.test_tables import everything, opened, picture_table
from tests.data_pipelines.toy import content

CAPTIONS = ["a big red dog runs", "a dog", "red", "a dog runs", "the dog"]
BY_LENGTH = ["red", "a dog", "the dog", "a dog runs", "a big red dog runs"]


def rows(count=6, **more) -> list[dict[str, object]]:
    """Five rows a picture, those of a picture together; equal numbers of words keep the order of the rows."""
    made = [(n, k, text) for n in range(count) for k, text in enumerate(CAPTIONS)]
    return [{"image": f"images/p{n}.png", "caption": f"{text} {n}", "number": k, **more} for n, k, text in made]


def write(path, records):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=7)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    elif path.suffix in (".jsonl", ".txt", ".csv"):
        lines = [json.dumps(record) for record in records]
        if path.suffix != ".jsonl":
            lines = [",".join(records[0]), *(",".join(map(str, record.values())) for record in records)]
        path.write_text("\n".join(lines))
    return path


def shuffled(records):
    return random.Random(0).sample(records, len(records))


@pytest.mark.parametrize("order", [list, shuffled])
@pytest.mark.parametrize("ending", ["csv", "txt", "jsonl", "json", "parquet"])
def test_rows_of_a_picture_are_one_sample(tmp_path, ending, order):
    images = picture_table(tmp_path)
    given = order(rows())
    source = opened(write(tmp_path / f"t.{ending}", given))["train"]
    first = list(dict.fromkeys(record["image"] for record in given))
    pairs = everything(pickle.loads(pickle.dumps(source)))
    assert [pair.source for pair in pairs] == first, "in the order of their first rows"
    assert list(source.names(0, 6)) == [name.removesuffix(".png") for name in first]
    for pair in pairs:
        number = int(pair.source[-5])
        said = [record["caption"] for record in given if record["image"] == pair.source]
        assert list(pair.captions) == sorted(said, key=lambda text: len(text.split()))
        assert pair.image == images[number]
        if order is list:
            assert list(pair.captions) == [f"{text} {number}" for text in BY_LENGTH]
    for start in range(6):
        for stop in range(start, 7):
            assert list(source.pairs(start, stop)) == pairs[start:stop]
    assert source.facts().levels_made["order"] == BY_WORDS
    assert source.identity()["grouped"] == {"rows": 30, "samples": 6}


def test_a_table_without_repeated_paths_is_what_it_was(tmp_path):
    picture_table(tmp_path)
    plain = [record for record in rows() if record["number"] == 0]
    source = opened(write(tmp_path / "t.csv", plain))["train"]
    assert "grouped" not in source.identity()
    assert source.facts().levels_made["order"] == "as given, coarse to fine"


def test_rows_can_stay_apart_and_keys_keep_them_apart(tmp_path):
    picture_table(tmp_path)
    path = write(tmp_path / "t.jsonl", [{**record, "id": n} for n, record in enumerate(rows())])
    assert len(open_source(path, SourceConfig(group="none"))["train"]) == 30
    assert len(opened(path, key="id")["train"]) == 30
    assert len(opened(path, key="image")["train"]) == 6


def test_conditions_choose_rows_and_shares_whole_pictures(tmp_path):
    picture_table(tmp_path)
    path = write(tmp_path / "t.parquet", shuffled(rows()))
    source = opened(path, where=("number<=1",))["train"]
    assert {len(pair.captions) for pair in everything(source)} == {2}
    assert source.identity()["parts"][0]["left_out"] == {"number<=1": 18}
    parts = opened(path, val_share=0.4)
    assert sum(map(len, parts.values())) == 6
    names = [name for part in parts.values() for name in part.names(0, len(part))]
    assert sorted(names) == [f"images/p{n}" for n in range(6)]


def test_rows_that_contradict_each_other_are_named(tmp_path):
    picture_table(tmp_path)
    records = [{**record, "kind": "cat" if n == 7 else "dog"} for n, record in enumerate(rows())]
    found = everything(opened(write(tmp_path / "t.csv", records), labels=("kind",))["train"])
    (bad,) = [item for item in found if isinstance(item, Bad)]
    assert (bad.source, bad.reason) == ("images/p1.png", "labels of its rows differ")
    assert bad.detail == "kind is dog before and cat in t.csv row 8"
    assert all(item.labels == {"kind": "dog"} for item in found if item is not bad)


def test_a_bad_row_is_a_bad_sample_and_leaves_its_picture(tmp_path):
    picture_table(tmp_path)
    path = write(tmp_path / "t.csv", rows())
    path.write_text(path.read_text() + "\nimages/p0.png,one,2,more")
    found = everything(opened(path)["train"])
    assert [item.reason for item in found if isinstance(item, Bad)] == ["ragged row"]
    assert len(found) == 7


def test_pictures_inside_a_table_are_never_grouped(tmp_path):
    images = picture_table(tmp_path, 2)
    column = [{"bytes": data, "path": "same.png"} for data in images]
    pq.write_table(pa.table({"image": column, "text": ["a", "b"]}), tmp_path / "t.parquet")
    assert [pair.image for pair in everything(opened(tmp_path / "t.parquet")["train"])] == images


def test_the_same_bytes_from_two_processes(tmp_path):
    picture_table(tmp_path)
    path = write(tmp_path / "t.csv", shuffled(rows()))
    for name, processes in (("one", 1), ("two", 2)):
        config = PrepareConfig(size=16, samples_per_shard=2, processes=processes)
        prepare(open_source(path, SourceConfig()), tmp_path / name, config)
    assert content(tmp_path / "one") == content(tmp_path / "two")


WORDS = ["train", "TRAIN", "restval", "val", "validation", "dev", "test", "testing", "", "training"]
SPLITS = {"train": [0, 1, 2, 8, 9], "val": [3, 4, 5], "test": [6, 7]}


def split_rows():
    return [{"image": f"images/p{n}.png", "caption": f"no {n}", "split": word} for n, word in enumerate(WORDS)]


def numbers(sources):
    return {name: [int(pair.source[-5]) for pair in everything(source)] for name, source in sources.items()}


@pytest.mark.parametrize("name", ["my_test.csv", "t.jsonl", "t.json", "t.parquet", "captions.jsonl"])
def test_a_column_says_the_splits(tmp_path, name):
    picture_table(tmp_path, len(WORDS))
    path = write(tmp_path / name, [{**row, "file_name": row["image"]} for row in split_rows()])
    path = tmp_path if name == "captions.jsonl" else path
    assert numbers(opened(path)) == SPLITS
    kept = open_source(path, SourceConfig(where=("caption!=no 4,no 6,no 7",)))
    assert numbers(kept) == {"train": SPLITS["train"], "val": [3, 5]}
    with pytest.raises(ConfigError, match=r"say their splits \(train, val, test\); leave out the shares"):
        opened(path, val_share=0.2)
    whole = open_source(path, SourceConfig(split_field=""))
    assert [len(source) for source in whole.values()] == [len(WORDS)]
    with pytest.raises(ConfigError, match=r"`split_field`.*did you mean split"):
        open_source(path, SourceConfig(split_field="splt"))


def test_words_that_are_no_split_are_named_or_taken_as_asked(tmp_path):
    picture_table(tmp_path, len(WORDS))
    records = [{**row, "part": ["minival", "extra"][n % 2]} for n, row in enumerate(split_rows())]
    path = write(tmp_path / "t.csv", records)
    found = open_source(path, SourceConfig(split_field="part"))
    assert {name: len(source) for name, source in found.items()} == {"minival": 5, "extra": 5}
    path = write(tmp_path / "t.csv", [{**record, "split": record["part"]} for record in records])
    with pytest.raises(DataError, match=r"t\.csv row 1: field 'split' says 'minival'.*`split_field`"):
        opened(path)
    path = write(tmp_path / "t.csv", [{**record, "split": "a-b"} for record in records])
    with pytest.raises(DataError, match="small letters"):
        open_source(path, SourceConfig(split_field="split"))


def test_a_column_counts_more_than_the_names_of_files_and_groups_within_a_split(tmp_path):
    picture_table(tmp_path)
    (tmp_path / "set").mkdir()
    records = [{**row, "split": "val" if row["image"] == "images/p1.png" else "train"} for row in rows()]
    write(tmp_path / "set/train.csv", records[:12])
    write(tmp_path / "set/test.csv", records[12:])
    found = opened(tmp_path / "set", images=tmp_path)
    assert numbers(found) == {"train": [2, 3, 4, 5, 0], "val": [1]}
    assert {len(pair.captions) for source in found.values() for pair in everything(source)} == {5}


def test_a_picture_in_two_splits_is_an_error_that_names_both_rows(tmp_path):
    picture_table(tmp_path)
    records = [{**row, "split": "val" if n == 17 else "train"} for n, row in enumerate(rows())]
    path = write(tmp_path / "t.csv", records)
    with pytest.raises(DataError, match=r"row 16 and t\.csv row 18 .* images/p3, but of the splits train and val"):
        opened(path)
    assert len(open_source(path, SourceConfig(split_field=""))["train"]) == 6


@pytest.mark.parametrize("option", [{"quoting": "none"}, {"group": "none"}, {"split_field": "split"}])
def test_options_for_tables_are_refused_where_there_is_none(tmp_path, option):
    picture_table(tmp_path)
    (tmp_path / "images/p0.txt").write_text("a dog")
    with pytest.raises(ConfigError, match=rf"`{next(iter(option))}` has no use"):
        open_source(tmp_path / "images", SourceConfig(**option))
    if "quoting" in option:
        with pytest.raises(ConfigError, match="`quoting` has no use"):
            open_source(write(tmp_path / "t.jsonl", rows()), SourceConfig(fields=Fields(), **option))
