"""Latent shards: what was encoded comes back, foreign numbers are refused, killed exports end the same."""

from __future__ import annotations

import os
import signal
from itertools import islice

import numpy as np
import pytest
import torch

from data_pipelines.reading.image_text import ImageTextLoader
from data_pipelines.reading.latent_text import LatentTextLoader, read_latents
from data_pipelines.reading.loader import ReadConfig
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.reading.vocabulary import captions_in, token_lengths, train_vocabulary
from data_pipelines.shards.codes import CodeLayout
from data_pipelines.shards.latents import LatentRecord, LatentWriter
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.shards.shard_set import open_shards
from seqtok_core.foundation import faults
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.toy import content, scenes_folder, vocabulary

TOKENIZER = vocabulary()
SPEC = {"length": 4, "dim": 3, "mean": [[0.5] * 3] * 4, "tokenizer_id": "0123456789abcdef"}
SHAPE = (4, 3)
PER_SHARD = 8


def latents_of(index: int) -> np.ndarray:
    """Numbers that float16 holds exactly."""
    return np.random.default_rng(index).integers(-64, 64, SHAPE).astype(np.float32) / 16


def records(pictures, number: int, **extra):
    for index in range(number * PER_SHARD, min((number + 1) * PER_SHARD, len(pictures))):
        record = pictures.record(index)
        yield LatentRecord(
            key=record.key, latents=latents_of(index), captions=record.captions, labels=record.labels, **extra
        )


def export(images, out, **extra):
    """As the tokenizer's export does: the shards that are missing, then the manifest."""
    pictures = open_shards(images, "train")
    plan = {"tokenizer_id": SPEC["tokenizer_id"], "pictures": pictures.fingerprint}
    writer = LatentWriter(out, name="latents", shape=SHAPE, plan=plan, source=read_manifest(images))
    count = -(-len(pictures) // PER_SHARD)
    with writer.open():
        for number in range(count):
            if not writer.is_done("train", number):
                writer.write("train", number, records(pictures, number, **extra))
        return writer.finish(SPEC, {"train": count})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "scenes"
    scenes_folder(path, train=30, size=8)
    return path


@pytest.fixture(scope="module")
def latents(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "latents"
    export(images, path)
    return path


def test_latents_come_back_with_their_captions(images, latents):
    batch = read_latents(latents, "train", TOKENIZER)
    assert batch.latents.dtype == torch.float32
    assert np.array_equal(batch.latents.numpy(), np.stack([latents_of(n) for n in range(30)]))
    pictures = open_shards(images, "train")
    assert batch.keys == [pictures.key(n) for n in range(30)]
    assert batch.captions == [list(pictures.record(n).captions) for n in range(30)]
    assert batch.labels["count"].tolist() == [pictures.record(n).labels["count"] for n in range(30)]
    assert batch.codes is None
    assert len(read_latents(latents, "train", TOKENIZER, limit=5)) == 5


def test_the_spec_travels_with_the_shards(images, latents):
    settings = {"seed": 0, "global_batch": 8}
    assert LatentTextLoader(latents, "train", TOKENIZER, ReadConfig(), **settings).latent_spec == SPEC
    manifest = read_manifest(latents)
    assert manifest.kind == "latents"
    assert manifest.classes == read_manifest(images).classes
    assert manifest.levels == 4


@pytest.mark.parametrize("config", [ReadConfig(), ReadConfig(cache=False), ReadConfig(num_workers=1)])
def test_latents_come_in_the_order_of_their_pictures(images, latents, config):
    """Same seed, same shards: batch t of latents belongs to batch t of pictures."""
    settings = {"seed": 5, "global_batch": 8, "micro_batch": 2, "rank": 1, "world": 2}
    one = ImageTextLoader(images, "train", TOKENIZER, LoaderConfig(), **settings).iterate(2)
    other = LatentTextLoader(latents, "train", TOKENIZER, config, **settings).iterate(2)
    for pictures, batch in islice(zip(one, other, strict=True), 6):
        assert pictures.keys == batch.keys
        assert torch.equal(pictures.text_ids, batch.text_ids)
        assert np.array_equal(batch.latents.numpy(), np.stack([latents_of(n) for n in batch.index.tolist()]))


def test_codes_and_positions_travel_where_they_exist(images, tmp_path):
    export(images, tmp_path / "d", codes=np.arange(4), positions=np.array([3, 1, 0, 2]))
    batch = read_latents(tmp_path / "d", "train", TOKENIZER, limit=2)
    assert batch.codes.tolist() == [[0, 1, 2, 3]] * 2
    assert batch.positions.tolist() == [[3, 1, 0, 2]] * 2
    assert batch.codes.dtype == torch.int64


def test_a_picture_has_the_codes_that_the_codebook_allows(tmp_path):
    layout = CodeLayout(length=4, size=9, per_token=2)
    writer = LatentWriter(tmp_path / "d", name="l", shape=SHAPE, plan={}, codes=layout)
    for codes, message in (
        (None, "k: has no codes"),
        (np.zeros(4, int), r"k: codes are int64 \(4,\) instead of integers \(4, 2\)"),
        (np.zeros((4, 2)), "k: codes are float64"),
        (np.full((4, 2), 9), "k: codes from 9 to 9, the codebook has entries 0 to 8"),
        (np.full((4, 2), -1), "k: codes from -1 to -1"),
    ):
        record = LatentRecord(key="k", latents=np.zeros(SHAPE), captions=["x"], codes=codes)
        with writer.open(), pytest.raises(DataError, match=message):
            writer.write("train", 0, [record])
    assert CodeLayout(length=4, size=9).shape == (4,)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_numbers_that_float16_cannot_hold_are_refused_by_key(tmp_path, value):
    writer = LatentWriter(tmp_path / "d", name="l", shape=SHAPE, plan={})
    bad = np.zeros(SHAPE)
    bad[2, 1] = value
    good = LatentRecord(key="a", latents=np.zeros(SHAPE), captions=["x"])
    with writer.open(), pytest.raises(DataError, match=r"^bad-one: latents are not finite"):
        writer.write("train", 0, [good, LatentRecord(key="bad-one", latents=bad, captions=["x"])])
    assert not list((tmp_path / "d").glob("*.tar"))


def test_latents_of_another_shape_are_refused(tmp_path):
    writer = LatentWriter(tmp_path / "d", name="l", shape=SHAPE, plan={})
    with writer.open(), pytest.raises(DataError, match=r"k: latents have shape \(3, 4\) instead of \(4, 3\)"):
        writer.write("train", 0, [LatentRecord(key="k", latents=np.zeros((3, 4)), captions=[])])


def test_a_missing_shard_is_never_called_finished(images, tmp_path):
    pictures = open_shards(images, "train")
    writer = LatentWriter(tmp_path / "d", name="l", shape=SHAPE, plan={})
    with writer.open():
        writer.write("train", 0, records(pictures, 0))
        with pytest.raises(DataError, match="shard 1 of 2 is not written"):
            writer.finish(SPEC, {"train": 2})
    with pytest.raises(DataError, match="not finished"):
        read_latents(tmp_path / "d", "train", TOKENIZER)


def test_stored_latents_are_read_back_shard_by_shard(images, tmp_path):
    export(images, tmp_path / "d")
    plan = {"tokenizer_id": SPEC["tokenizer_id"], "pictures": open_shards(images, "train").fingerprint}
    writer = LatentWriter(tmp_path / "d", name="latents", shape=SHAPE, plan=plan)
    parts = list(writer.stored("train", 4))
    assert [len(part) for part in parts] == [8, 8, 8, 6]
    assert np.array_equal(np.concatenate(parts), np.stack([latents_of(n) for n in range(30)]))


POINTS = [
    "shards.before_rename:2",
    "shards.before_index:3",
    "shards.after_index:4",
    "latents.before_manifest:1",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_export_continues_to_the_same_bytes(images, latents, tmp_path, point):
    folder = tmp_path / "d"
    child = os.fork()
    if child == 0:
        os.environ["SEQTOK_FAULTS"] = f"{point}=kill"
        faults._visits.clear()
        export(images, folder)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    done = {path.name: path.stat().st_ino for path in folder.glob("*.index.json")}
    export(images, folder)
    assert content(folder) == content(latents)
    assert {name: (folder / name).stat().st_ino for name in done} == done, "committed shards are kept"


def test_another_tokenizers_export_is_refused(images, tmp_path):
    folder = tmp_path / "d"
    export(images, folder)
    other = LatentWriter(folder, name="latents", shape=SHAPE, plan={"tokenizer_id": "another"})
    with pytest.raises(DataError, match="another source"), other.open():
        pass
    with other.open(overwrite=True):
        assert not list(folder.glob("*.tar"))


def test_pictures_and_latents_are_not_mistaken_for_each_other(images, latents):
    with pytest.raises(DataError, match="holds latents, not images"):
        open_shards(latents, "train")
    with pytest.raises(DataError, match="holds images, not latents"):
        read_latents(images, "train", TOKENIZER)


def test_a_vocabulary_of_latents_is_that_of_their_pictures(images, latents, tmp_path):
    one = train_vocabulary(images, 300, path=tmp_path / "one")
    assert train_vocabulary(latents, 300, path=tmp_path / "other").sha256 == one.sha256
    lengths = token_lengths(latents, one)
    every = [len(one.encode(text)) for pyramid in captions_in(images, "train") for text in pyramid]
    assert lengths.longest == max(every)
    assert lengths.mean == pytest.approx(np.mean(every))
    assert lengths.p99 in every
    assert np.mean(np.array(every) <= lengths.p99) >= 0.99


@pytest.mark.parametrize("kind", [{"num_workers": 1}, {"cache": False}, {"cache": True, "num_workers": 1}])
def test_latents_are_resampled_as_their_pictures_are(images, latents, kind):
    settings = {"seed": 5, "global_batch": 8}
    one = ImageTextLoader(images, "train", TOKENIZER, LoaderConfig(mode="resample"), **settings).iterate(3)
    other = LatentTextLoader(latents, "train", TOKENIZER, ReadConfig(mode="resample", **kind), **settings).iterate(3)
    for pictures, batch in islice(zip(one, other, strict=True), 6):
        assert pictures.keys == batch.keys
        assert np.array_equal(batch.latents.numpy(), np.stack([latents_of(n) for n in batch.index.tolist()]))


@pytest.mark.parametrize("file", ["tar", "index"])
def test_latents_that_changed_are_found_before_step_0(images, tmp_path, file):
    export(images, tmp_path / "d")
    path = tmp_path / "d" / f"latents-train-000001.{'tar' if file == 'tar' else 'index.json'}"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="latents-train-000001"):
        LatentTextLoader(tmp_path / "d", "train", TOKENIZER, ReadConfig(), seed=0, global_batch=8)
