"""The index of many shards: packed, read when needed, dropped when others are used; memory does not grow."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.shards import opened
from data_pipelines.shards import shard_set as shards
from data_pipelines.shards.files import commit_shard
from data_pipelines.shards.manifest import read_manifest, write_manifest
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.tars.index import PackedSamples, TarSample
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.toy import foreign_members, scenes_folder, write_tar

SPANS = st.tuples(st.integers(0, 2**40), st.integers(0, 2**33))
NAMES = st.text(st.characters(), max_size=12)
SAMPLES = st.lists(st.builds(TarSample, NAMES, st.dictionaries(NAMES, SPANS, max_size=4)), max_size=6)


@given(SAMPLES)
def test_packing_loses_nothing(samples):
    packed = PackedSamples(samples)
    assert [packed[n] for n in range(len(packed))] == samples
    assert [list(packed[n].members) for n in range(len(packed))] == [list(sample.members) for sample in samples]
    assert [packed.key(n) for n in range(len(packed))] == [sample.key for sample in samples]


def test_surrogates_of_tar_names_survive():
    sample = TarSample("bad-\udcff", {"jpg": (1, 2)})
    assert PackedSamples([sample])[0] == sample


def test_a_packed_sample_takes_tens_of_bytes():
    samples = [TarSample(f"train-{n:08d}", dict.fromkeys(("png", "json", "txt"), (512 * n, 99))) for n in range(1000)]
    assert PackedSamples(samples).nbytes < 100 * len(samples)


def many_shards(folder: Path, count: int, per_shard: int) -> Path:
    """A data set without pictures worth the name; one shard's work is a few records."""
    scenes_folder(folder, train=8, test=8, size=8)
    manifest = read_manifest(folder)
    infos = [
        commit_shard(
            folder,
            f"scenes-train-{number:06d}.tar",
            (
                (f"k{number:04d}x{n:04d}", {"png": b"x" * 50, "json": b'{"captions": ["a b"]}'})
                for n in range(per_shard)
            ),
            task=str(number),
            facts={},
        )
        for number in range(count)
    ]
    train = manifest.splits["train"].model_copy(update={"shards": tuple(infos), "samples": count * per_shard})
    write_manifest(folder, manifest.model_copy(update={"splits": {**manifest.splits, "train": train}}))
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return many_shards(tmp_path_factory.mktemp("data") / "d", 60, 100)


def test_only_the_shards_in_use_are_held(large):
    found = open_shards(large, "train")
    assert len(found) == 6000
    assert found._open.nbytes == 0, "opening reads no index"
    assert len(pickle.dumps(found)) < 100_000
    before = len(os.listdir("/proc/self/fd"))
    for index in range(0, 6000, 10):
        assert found.key(index) == f"k{index // 100:04d}x{index % 100:04d}"
        assert found.record(index).captions == ("a b",)
    assert len(found._open._open) == opened._LEAST
    assert len(os.listdir("/proc/self/fd")) - before == opened._LEAST
    assert found._open.nbytes < opened._LEAST * 100 * 100
    found.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert found.key(3) == "k0000x0003", "and opens again"


def test_reading_all_takes_no_more_memory_than_reading_some(large):
    def peak(samples: int) -> int:
        found = open_shards(large, "train")
        tracemalloc.start()
        for index in range(samples):
            found.record(index)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    some = peak(100 * opened._LEAST)
    assert peak(6000) < 1.1 * some


def test_every_read_sees_its_own_shard_whatever_was_dropped(large):
    found = open_shards(large, "train")
    order = [(17 * n) % 6000 for n in range(2000)]
    for index in order:
        assert found.read(index, ("png",)) == b"x" * 50
        assert found.place(index).endswith(f"scenes-train-{index // 100:06d}.tar:k{index // 100:04d}x{index % 100:04d}")


@pytest.mark.parametrize("damage", ["bytes", "gone", "index"])
def test_what_changes_after_the_check_is_named(tmp_path, damage):
    folder = many_shards(tmp_path / "d", 2, 5)
    found = open_shards(folder, "train")
    tar, index = folder / "scenes-train-000001.tar", folder / "scenes-train-000001.index.json"
    if damage == "bytes":
        os.truncate(tar, 600)
    if damage == "gone":
        tar.unlink()
    if damage == "index":
        content = json.loads(index.read_text())
        content["samples"].pop()
        index.write_text(json.dumps(content))
    with pytest.raises(DataError, match="scenes-train-000001"):
        [found.read(n, ("json",)) for n in range(10)]


def test_foreign_tars_are_packed_too(tmp_path):
    write_tar(tmp_path / "train-0.tar", foreign_members(0, 6))
    write_tar(tmp_path / "train-1.tar", foreign_members(6, 5))
    found = open_shards(tmp_path, "train")
    assert [found.key(n) for n in range(11)] == [f"k{n}" for n in range(11)]
    assert found._open.nbytes < 11 * 150
    copy = pickle.loads(pickle.dumps(found))
    assert copy.read_image(7) == found.read_image(7)


def test_all_faults_of_a_folder_are_found_side_by_side(tmp_path):
    folder = many_shards(tmp_path / "d", 12, 3)
    for number in (3, 7, 8):
        (folder / f"scenes-train-{number:06d}.tar").unlink()
    with pytest.raises(DataError, match=r"000003\.tar: shard is missing"):
        open_shards(folder, "train")
    found = open_shards(folder, "train", on_bad_shard="skip")
    assert [message.split("train-")[1][:6] for message in found.skipped] == ["000003", "000007", "000008"]
    assert len(found) == 27
    assert shards.check_shard(folder, read_manifest(folder).splits["train"].shards[0]) is None
