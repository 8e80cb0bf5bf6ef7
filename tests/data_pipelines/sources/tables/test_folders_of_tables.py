"""Tables in folders of folders are read as those of one folder: quoting, splits, rows of one picture, JSON, Arrow."""

from __future__ import annotations

import base64
import json

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.base import Bad, Pair
from data_pipelines.sources.derived.shuffled import Shuffled, sorted_label
from data_pipelines.sources.open import detect_kind
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.sources.tables.test_groups import write
from tests.data_pipelines.sources.test_folders import put
from tests.data_pipelines.sources.test_tables import everything, opened, picture_table
from tests.data_pipelines.toy import file_bytes, picture


def rows(folder: str, numbers: range, **more: object) -> list[dict[str, object]]:
    """Two rows a picture, first all short captions."""
    return [
        {"image": f"images/p{n}.png", "caption": f"{text} {folder} {n}", **more}
        for text in ("short", "a longer")
        for n in numbers
    ]


def parts(path, ending, **more):
    """part-0/ and part-1/, each with a table of its own pictures, called alike."""
    for folder in ("part-0", "part-1"):
        picture_table(path / folder, 3)
        write(path / folder / f"t.{ending}", rows(folder, range(3), **more))
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_rows_of_a_picture_are_grouped_folder_by_folder(tmp_path, ending):
    source = opened(parts(tmp_path, ending))["train"]
    assert source.identity()["grouped"] == {"rows": 12, "samples": 6}
    pairs = everything(source)
    assert [pair.source for pair in pairs] == [f"part-{k}/images/p{n}.png" for k in range(2) for n in range(3)]
    assert [pair.captions for pair in pairs] == [
        (f"short part-{k} {n}", f"a longer part-{k} {n}") for k in range(2) for n in range(3)
    ]
    assert len(set(source.names(0, 6))) == 6
    for start in range(6):
        for stop in range(start, 7):
            assert list(source.pairs(start, stop)) == pairs[start:stop]


def test_with_one_folder_of_pictures_rows_of_one_belong_together_across_tables(tmp_path):
    picture_table(tmp_path / "pictures", 4)
    for number in range(2):
        (tmp_path / f"set/{number:02d}").mkdir(parents=True)
        write(tmp_path / f"set/{number:02d}/t.csv", rows(str(number), range(number, number + 3)))
    source = opened(tmp_path / "set", images=tmp_path / "pictures")["train"]
    assert list(source.names(0, len(source))) == [f"images/p{n}" for n in range(4)]
    assert [len(pair.captions) for pair in everything(source)] == [2, 4, 4, 2]


def test_a_column_of_splits_cuts_the_tables_of_all_folders(tmp_path):
    for folder, word in (("part-0", "train"), ("part-1", "testing")):
        picture_table(tmp_path / folder, 3)
        write(tmp_path / folder / "t.csv", rows(folder, range(3), split=word))
    found = opened(tmp_path)
    assert {split: len(source) for split, source in found.items()} == {"train": 3, "test": 3}
    assert all(name.startswith("part-1/") for name in found["test"].names(0, 3))
    kept = opened(tmp_path, where=("caption!=short part-0 1",))
    assert [len(pair.captions) for pair in everything(kept["train"])] == [2, 2, 1]
    write(tmp_path / "part-1" / "t.csv", rows("b", range(3), split="nowhere"))
    with pytest.raises(DataError, match=r"^part-1/t\.csv row 1: field 'split' says 'nowhere'"):
        opened(tmp_path)
    for folder in ("part-0", "part-1"):
        two = rows(folder, range(1))
        write(tmp_path / folder / "t.csv", [{**two[0], "split": "train"}, {**two[1], "split": "val"}])
    with pytest.raises(DataError, match=r"^part-0/t\.csv row 1 and part-0/t\.csv row 2 are of one picture"):
        opened(tmp_path)


def test_bad_rows_and_pictures_in_cells_are_named_by_folder_and_row(tmp_path):
    path = parts(tmp_path, "jsonl")
    cell = base64.b64encode(file_bytes(picture(7))).decode()
    more = ["no JSON", {"image": cell, "caption": "x"}, {"image": cell, "caption": "y"}]
    more += [{"image": "images/p2.png", "caption": ["a", 1]}, {"image": "images/p9.png", "caption": "none there"}]
    with open(path / "part-1/t.jsonl", "a") as stream:
        stream.writelines(f"\n{line if isinstance(line, str) else json.dumps(line)}" for line in more)
    pairs = everything(opened(path)["train"])
    bad = [pair.source for pair in pairs if isinstance(pair, Bad)]
    assert bad == ["part-1/t.jsonl line 10", "part-1/t.jsonl line 7", "part-1/images/p9.png"]
    in_cells = {pair.source: pair.captions for pair in pairs if isinstance(pair, Pair) and "line" in pair.source}
    assert in_cells == {"part-1/t.jsonl line 8": ("x",), "part-1/t.jsonl line 9": ("y",)}


def test_rows_of_a_picture_of_metadata_above_folders_of_splits(tmp_path):
    records = []
    for split in ("train", "test"):
        put(tmp_path, {f"{split}/{n}.png": None for n in range(2)})
        records += [{"file_name": f"{split}/{n}.png", "text": f"{text} {n}"} for text in ("a b", "c") for n in range(2)]
    write(tmp_path / "metadata.csv", records)
    found = opened(tmp_path)
    assert list(found) == ["train", "test"]
    for source in found.values():
        assert [pair.captions for pair in everything(source)] == [("c 0", "a b 0"), ("c 1", "a b 1")]


def test_each_folder_of_a_split_has_its_table_of_metadata_and_its_quoting(tmp_path):
    for split in ("train", "validation"):
        put(tmp_path, {f"{split}/{n}.png": None for n in range(6)})
        lines = [f"{n % 6}.png\t" + ('"Hello' if n == 1 else f"{split} {n}") for n in range(12)]
        (tmp_path / split / "metadata.tsv").write_text("\n".join(["file_name\ttext", *lines]))
    found = opened(tmp_path)
    assert {split: source.identity()["grouped"]["samples"] for split, source in found.items()} == {"train": 6, "val": 6}
    assert all(source.identity()["records"]["quoting"] == "none" for source in found.values())


def test_a_split_of_grouped_rows_is_shuffled_whole_where_it_is_sorted(tmp_path):
    """Blocks of a row group are counted in rows; a few samples must not be one block that stays as it is."""
    picture_table(tmp_path, 40)
    records = [
        {"image": f"images/p{n}.png", "caption": f"{text} {n}", "label": n // 10} for n in range(40) for text in "ab"
    ]
    pa.parquet.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    source = opened(tmp_path / "t.parquet", labels=("label",))["train"]
    assert sorted_label(source) == "label"
    assert source.facts().block == 40 // 8
    part = opened(tmp_path / "t.parquet", labels=("label",), where=("label<2",))["train"]
    assert part.facts().block == 20 // 8
    order = Shuffled(part, part.facts().block).indices(0, 20)
    assert sorted(order) == list(range(20))
    assert not np.array_equal(order, np.arange(20))
    manifest = prepare({"train": source}, tmp_path / "out", PrepareConfig(size=8))
    assert manifest.source["splits"]["train"]["parts"] == [{"shuffled": {"seed": 0, "block": 5}}]
    assert manifest.splits["train"].samples == 40


def test_a_lone_list_of_captions_is_a_kind_beside_others(tmp_path):
    picture_table(tmp_path)
    records = [{"image": f"images/p{n}.png", "caption": str(n)} for n in range(6)]
    write(tmp_path / "captions.json", records)
    assert detect_kind(tmp_path) == "json"
    put(tmp_path, {"dataset_infos.json": json.dumps({"default": {"features": {"image": {"decode": True}}}})})
    assert detect_kind(tmp_path) == "json"
    (tmp_path / "data").mkdir()
    write(tmp_path / "data/train.parquet", records)
    with pytest.raises(DataError, match=r"several kinds.*\(json, parquet\).*captions\.json.*data/train\.parquet"):
        detect_kind(tmp_path)
    (tmp_path / "captions.json").unlink()
    assert detect_kind(tmp_path) == "parquet"


def test_a_lone_text_of_captions_at_the_top_counts_before_deeper_tables(tmp_path):
    picture_table(tmp_path, 2)
    records = [{"image": f"images/p{n}.png", "caption": f"top {n}"} for n in range(2)]
    write(tmp_path / "captions.txt", records)
    (tmp_path / "splits").mkdir()
    write(tmp_path / "splits/train.csv", [{"image": "x.png", "caption": "deep"}])
    with pytest.warns(UserWarning, match=r"1 in deeper folders are left aside, as splits/train\.csv; captions\.txt"):
        (source,) = opened(tmp_path).values()
    assert [pair.captions[0] for pair in everything(source)] == ["top 0", "top 1"]


def test_arrow_in_folders_is_read_without_what_was_computed(tmp_path):
    images = [{"bytes": file_bytes(picture(n)), "path": None} for n in range(4)]
    for split, texts in (("train", "ab"), ("test", "cd")):
        (tmp_path / split).mkdir()
        table = pa.table({"image": images[: len(texts)], "text": list(texts)})
        for name in ("data-00000-of-00001.arrow", "cache-0123.arrow"):
            with pa.ipc.new_stream(tmp_path / split / name, table.schema) as stream:
                stream.write_table(table)
    assert detect_kind(tmp_path) == "arrow"
    found = opened(tmp_path)
    assert {split: [pair.captions[0] for pair in everything(source)] for split, source in found.items()} == {
        "train": ["a", "b"],
        "test": ["c", "d"],
    }
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_files": [{"filename": "i.arrow"}]}
    put(tmp_path, {"train/state.json": json.dumps(state)})
    with pytest.raises(DataError, match="flatten_indices"):
        opened(tmp_path)


LISTS = {
    "plain": lambda names, split: [{"image": name, "caption": f"of {name}"} for name in names],
    "llava": lambda names, split: [
        {"image": name, "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": f"of {name}"}]}
        for name in names
    ],
    "karpathy": lambda names, split: {
        "images": [{"filename": name, "split": split, "sentences": [{"raw": f"of {name}"}]} for name in names]
    },
    "by file": lambda names, split: {name: f"of {name}" for name in names},
    "coco": lambda names, split: {
        "images": [{"id": name, "file_name": name} for name in names],
        "annotations": [{"image_id": name, "caption": f"of {name}"} for name in names],
    },
}
PLACES = {  # of the lists and of the pictures, by split
    "folders of splits": ("{split}/{split}_x.json", "{split}"),
    "folders of splits with images": ("{split}/captions.json", "{split}/images"),
    "folders of splits beside images": ("{split}/captions.json", "images"),
    "names of files": ("captions_{split}.json", "images"),
}


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("shape", LISTS)
def test_a_list_for_each_split(tmp_path, shape, places):
    table, pictures = PLACES[places]
    if shape == "coco" and places == "folders of splits beside images":
        table = "{split}/annotations.json"
    names = {"train": ["p0.png", "p1.png"], "val": ["p2.png"]}
    for number, (split, own) in enumerate(names.items()):
        put(tmp_path / pictures.format(split=split), {name: file_bytes(picture(number)) for name in own})
        put(tmp_path, {table.format(split=split): json.dumps(LISTS[shape](own, split))})
    sources = opened(tmp_path)
    assert {split: [pair.captions for pair in everything(source)] for split, source in sources.items()} == {
        split: [(f"of {name}",) for name in own] for split, own in names.items()
    }


def test_a_split_without_a_list_of_its_own_is_not_left_out_in_silence(tmp_path):
    for split in ("train", "val"):
        put(tmp_path / split, {f"{n}.png": file_bytes(picture(n)) for n in range(2)})
    put(tmp_path, {"train/x.json": json.dumps(LISTS["plain"](["0.png", "1.png"], "train"))})
    with pytest.raises(DataError, match=r"x\.json belongs to no picture"):
        opened(tmp_path)
    put(tmp_path, {"val/y.json": json.dumps(LISTS["by file"](["0.png", "1.png"], "val"))})
    assert {split: len(source) for split, source in opened(tmp_path).items()} == {"train": 2, "val": 2}
    put(tmp_path, {"val/z.json": json.dumps(LISTS["by file"](["0.png"], "val"))})
    with pytest.raises(DataError, match=r"belongs to no picture"):
        opened(tmp_path)
