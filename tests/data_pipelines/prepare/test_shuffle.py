"""Shuffling while preparing: a permutation of places, on by itself where the order is sorted, the same bytes always."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.manifest import Manifest
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.base import Facts, Pair
from data_pipelines.sources.derived.shuffled import Shuffled, sorted_by
from data_pipelines.sources.tables.parquet_rows import ParquetRows
from seqtok_core.foundation.random_bits import permuted
from tests.data_pipelines.sources.test_folders import put
from tests.data_pipelines.sources.test_tables import everything, opened
from tests.data_pipelines.toy import content, file_bytes, picture

CLASSES, EACH = 4, 12


def class_folders(folder) -> dict:
    """A source sorted by class."""
    image = file_bytes(picture())
    put(folder, {f"class{c}/{n}.png": image for c in range(CLASSES) for n in range(EACH)})
    return opened(folder)


def labels_by_shard(manifest: Manifest, folder) -> list[list[int]]:
    shards = open_shards(folder, "train")
    found = [shards.record(n).labels["label"] for n in range(len(shards))]
    return [part.tolist() for part in np.split(np.array(found), np.cumsum(shards.sizes)[:-1])]


@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63), stream=st.integers(0, 2**63))
def test_every_place_is_taken_once_and_known_alone(count, seed, stream):
    whole = permuted(np.arange(count), count, seed, stream)
    assert np.array_equal(np.sort(whole), np.arange(count))
    some = np.array([count - 1, 0, count // 2])
    assert np.array_equal(permuted(some, count, seed, stream), whole[some])


def test_a_permutation_mixes_and_depends_on_its_seed():
    one, other = (permuted(np.arange(100_000), 100_000, seed, 5) for seed in (0, 1))
    assert (one == other).sum() < 20, "as many as chance leaves: one"
    assert abs(np.corrcoef(one, np.arange(100_000))[0, 1]) < 0.02
    assert len(np.unique(one[:1000] // 1000)) == 100, "a thousand in a row come from everywhere"


def test_a_run_of_today_is_continued_tomorrow():
    assert permuted(np.arange(8), 8, 0, 3).tolist() == [5, 1, 3, 2, 0, 7, 4, 6]


@pytest.mark.parametrize("block", [1, 5])
def test_blocks_move_as_a_whole(block):
    source = Shuffled(Numbers(23), block)
    order = source.indices(0, 23)
    assert sorted(order.tolist()) == list(range(23))
    starts = order[: 23 // block * block].reshape(-1, block)
    assert (np.diff(starts, axis=1) == 1).all()
    assert (starts[:, 0] % block == 0).all()
    assert [int(pair.source) for pair in source.pairs(3, 19)] == order[3:19].tolist()
    assert list(source.names(3, 19)) == [str(n) for n in order[3:19]]


def test_sorted_sources_are_shuffled_by_themselves_and_it_is_part_of_what_they_are(tmp_path):
    sources = class_folders(tmp_path / "in")
    manifests = {}
    for how in ("auto", "on", "off"):
        config = PrepareConfig(size=8, samples_per_shard=12, shuffle=how)
        manifests[how] = prepare(sources, tmp_path / how, config)
    assert content(tmp_path / "auto") == content(tmp_path / "on")
    assert [len(set(shard)) for shard in labels_by_shard(manifests["off"], tmp_path / "off")] == [1] * CLASSES
    shuffled = labels_by_shard(manifests["auto"], tmp_path / "auto")
    assert min(len(set(shard)) for shard in shuffled) >= 3
    assert sorted(label for shard in shuffled for label in shard) == [c for c in range(CLASSES) for _ in range(EACH)]
    keys = [{open_shards(tmp_path / how, "train").key(n) for n in range(CLASSES * EACH)} for how in ("on", "off")]
    assert keys[0] == keys[1]
    plans = [manifests[how].source["splits"]["train"] for how in ("auto", "off")]
    assert plans[0] == {**plans[1], "parts": [{"shuffled": {"seed": 0, "block": 1}}]}


def test_shuffled_bytes_are_the_same_from_two_processes_and_after_a_stop(tmp_path):
    sources = class_folders(tmp_path / "in")
    for name, processes in (("one", 1), ("two", 2)):
        prepare(sources, tmp_path / name, PrepareConfig(size=8, samples_per_shard=5, processes=processes))
    assert content(tmp_path / "one") == content(tmp_path / "two")
    for file in ("dataset.json", "data-train-000003.tar"):
        (tmp_path / "two" / file).unlink()
    prepare(sources, tmp_path / "two", PrepareConfig(size=8, samples_per_shard=5))
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_what_was_begun_in_the_order_of_its_source_goes_on_in_it(tmp_path):
    sources = class_folders(tmp_path / "in")
    prepare(sources, tmp_path / "out", PrepareConfig(size=8, samples_per_shard=5, shuffle="off"))
    whole = content(tmp_path / "out")
    for file in ("dataset.json", "data-train-000003.tar"):
        (tmp_path / "out" / file).unlink()
    with pytest.warns(UserWarning, match="begun in the order of its source"):
        prepare(sources, tmp_path / "out", PrepareConfig(size=8, samples_per_shard=5))
    assert content(tmp_path / "out") == whole
    prepare(sources, tmp_path / "out", PrepareConfig(size=8, samples_per_shard=5), overwrite=True)
    assert content(tmp_path / "out") != whole


def test_the_first_of_two_equal_names_counts_in_every_order(tmp_path):
    image = file_bytes(picture())
    put(tmp_path, {f"{n}.png": image for n in range(20)})
    lines = [{"image": f"{n % 20}.png", "text": f"line {n}"} for n in range(40)]
    put(tmp_path, {"t.jsonl": "\n".join(map(json.dumps, lines))})
    config = PrepareConfig(size=8, samples_per_shard=7, shuffle="on", max_bad_share=1)
    source = opened(tmp_path, group="none")
    assert prepare(source, tmp_path / "out", config).splits["train"].dropped == {"duplicate name": 20}
    shards = open_shards(tmp_path / "out", "train")
    texts = {shards.record(n).captions for n in range(len(shards))}
    assert texts == {(f"line {n}",) for n in range(20)}


def table_of_classes(path, group: int):
    """96 rows of 4 classes, one after another."""
    rows = {"image": [file_bytes(picture())] * 96, "text": [f"class {n // 24}" for n in range(96)]}
    pq.write_table(pa.table(rows), path, row_group_size=group)
    return rows


@pytest.mark.parametrize(
    ("count", "rows", "block"),
    [(4, 1, 1), (96, 32, 4), (3000, 100, 12), (4000, 1, 1), (4000, 9, 4), (4000, 100, 48), (4000, 500, 83)],
)
def test_rows_of_parquet_are_shuffled_in_parts_of_row_groups(tmp_path, count, rows, block):
    pq.write_table(pa.table({"n": list(range(count))}), tmp_path / "t.parquet", row_group_size=rows)
    assert ParquetRows(tmp_path / "t.parquet").block == block


def test_what_was_begun_in_other_blocks_goes_on_in_them(tmp_path):
    """Earlier versions shuffled Parquet in eighths of row groups."""
    table_of_classes(tmp_path / "t.parquet", group=32)
    source, config = opened(tmp_path)["train"], PrepareConfig(size=8, samples_per_shard=24)
    prepare({"train": Shuffled(source, 3)}, tmp_path / "out", config)
    whole = content(tmp_path / "out")
    for file in ("dataset.json", "data-train-000002.tar"):
        (tmp_path / "out" / file).unlink()
    prepare({"train": source}, tmp_path / "out", config)
    assert content(tmp_path / "out") == whole
    prepare({"train": source}, tmp_path / "out", config, overwrite=True)
    assert content(tmp_path / "out") != whole


def test_rows_of_parquet_in_another_order_are_the_rows(tmp_path):
    rows = table_of_classes(tmp_path / "t.parquet", group=8)
    source = opened(tmp_path)["train"]
    found = prepare({"train": source}, tmp_path / "out", PrepareConfig(size=8, samples_per_shard=24))
    assert found.source["splits"]["train"]["parts"] == [{"shuffled": {"seed": 0, "block": 1}}]
    texts = [pair.captions[0] for pair in everything(Shuffled(source, 4))]
    assert sorted(texts) == rows["text"]
    assert len(set(texts[:24])) > 1


@pytest.mark.parametrize("count", [16, 100, 5000])
def test_an_order_is_sorted_where_neighbours_are_alike_and_strangers_are_not(count):
    random = np.random.default_rng(count)
    orders = {
        "two classes": (np.arange(count) * 2 // count, True),
        "many classes": (np.arange(count) * 4 // count, True),
        "two in turns": (np.arange(count) % 2, False),
        "three in turns": (np.arange(count) % 3, False),
        "mixed": (random.integers(0, 4, count), False),
        "nearly one class": ((np.arange(count) == 3).astype(int), False),
        "one class": (np.zeros(count, int), False),
        "all different": (np.arange(count), False),
    }
    for name, (values, is_sorted) in orders.items():
        found = sorted_by(count, lambda index, values=values: {"a": int(values[index]), "b": index})
        assert found == ("a" if is_sorted else None), name
    assert sorted_by(count, lambda index: {}) is None


class Numbers:
    """A source whose samples are called by their places."""

    kind = "numbers"

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def names(self, start, stop):
        return (str(n) for n in range(start, stop))

    def pairs(self, start, stop):
        return (Pair(image=b"", captions=(), source=str(n)) for n in range(start, stop))

    def identity(self):
        return {}

    def facts(self):
        return Facts()
