"""Batches of pictures: the same for all worker counts, ranks and resumes; our data sets and foreign tars."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipelines import scenes
from data_pipelines.reading.image_text import ImageTextLoader, read_split, sample_split
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.samples import ImageTextBatch
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.records import Fields
from seqtok_core.foundation.errors import ConfigError, DataError, SeqtokError
from tests.data_pipelines.toy import content, file_bytes, foreign_members, picture, scenes_folder, vocabulary, write_tar

TOKENIZER = vocabulary()
FOREIGN = Fields(labels=("group", "year"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "scenes"
    scenes_folder(path, train=50, size=16)
    return path


@pytest.fixture
def foreign(tmp_path):
    write_tar(tmp_path / "t/train-0.tar", foreign_members(0, 5))
    write_tar(tmp_path / "t/train-1.tar", foreign_members(5, 6))
    write_tar(tmp_path / "t/val-0.tar", foreign_members(11, 3))
    return tmp_path / "t"


def loader(folder, *, rank=0, world=1, batch=8, micro=None, seed=0, split="train", **config) -> ImageTextLoader:
    settings = LoaderConfig(**config)
    return ImageTextLoader(
        folder,
        split,
        TOKENIZER,
        settings,
        seed=seed,
        global_batch=batch,
        micro_batch=micro,
        rank=rank,
        world=world,
    )


def take(source: ImageTextLoader, count: int, start: int = 0) -> list[ImageTextBatch]:
    return list(islice(source.iterate(start), count))


def equal(one: ImageTextBatch, other: ImageTextBatch) -> bool:
    names = ("images", "index", "epoch", "text_ids", "level_mask", "caption_ids")
    same = all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)
    labels = all(torch.equal(one.labels[name], other.labels[name]) for name in one.labels)
    return same and labels and one.keys == other.keys and one.captions == other.captions


@pytest.mark.parametrize("cache", [True, False])
def test_a_share_of_samples_has_captions_and_always_the_same_ones(folder, cache: bool):
    """Those of a share have them of every larger one, too; pictures and labels are as ever."""
    told = {}
    for share in (0.0, 0.3, 0.6, 1.0):
        batches = take(loader(folder, batch=10, cache=cache, captioned_share=share), 10)
        kept = {key for batch in batches for key, own in zip(batch.keys, batch.captions, strict=True) if own}
        told[share] = kept
        for epochs, whole in zip(batches, take(loader(folder, batch=10, cache=cache), 10), strict=True):
            assert torch.equal(epochs.images, whole.images)
            assert all(torch.equal(epochs.labels[name], whole.labels[name]) for name in whole.labels)
            rows = torch.tensor([key in kept for key in epochs.keys])
            assert torch.equal(epochs.level_mask, whole.level_mask & rows[:, None])
            assert not epochs.text_ids[~rows].any()
            assert (epochs.caption_ids[~rows] == -1).all()
            assert torch.equal(epochs.text_ids[rows], whole.text_ids[rows])
    assert not told[0.0]
    assert told[0.3] < told[0.6] < told[1.0]
    assert len(told[1.0]) == 50
    assert 15 <= len(told[0.6]) <= 45


def test_a_batch_is_what_was_drawn(folder):
    for batch in take(loader(folder), 8):
        assert batch.images.dtype == torch.uint8
        assert batch.text_ids.shape == (8, 4, 32)
        for row, index in enumerate(batch.index.tolist()):
            scene = scenes.make_scene(0, index, "train")
            drawn = torch.from_numpy(scenes.render(scene, 16)).permute(2, 0, 1)
            assert torch.equal(batch.images[row], drawn)
            assert batch.captions[row] == list(scene.captions)
            assert TOKENIZER.decode(batch.text_ids[row, 3]) == scene.captions[3]
            assert {name: int(values[row]) for name, values in batch.labels.items()} == scene.labels
            assert batch.keys[row] == f"train-{index:08d}"


def test_an_epoch_shows_each_sample_once_and_counts_itself(folder):
    source = loader(folder)
    assert source.steps_per_epoch == 6
    assert source.samples == 48
    batches = take(source, 12)
    assert [int(b.epoch[0]) for b in batches] == [0] * 6 + [1] * 6
    for half in (batches[:6], batches[6:]):
        assert len({int(i) for b in half for i in b.index}) == 48


@pytest.mark.parametrize("config", [{"num_workers": 1}, {"num_workers": 2}, {"cache": False}])
def test_workers_and_cache_change_no_batch(folder, config):
    expected = take(loader(folder), 9, start=2)
    got = take(loader(folder, **config), 9, start=2)
    assert all(equal(one, other) for one, other in zip(expected, got, strict=True))


@pytest.mark.parametrize(("world", "micro"), [(1, 2), (2, 4), (2, 1), (4, 2)])
def test_ranks_together_see_the_batch_of_one_process(folder, world, micro):
    whole = take(loader(folder), 3, start=5)
    per_step = 8 // world // micro
    ranks = [take(loader(folder, rank=r, world=world, micro=micro), 3 * per_step, start=5) for r in range(world)]
    for step, batch in enumerate(whole):
        parts = [part for own in ranks for part in own[step * per_step : (step + 1) * per_step]]
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert [key for part in parts for key in part.keys] == batch.keys


def test_resuming_equals_never_having_stopped(folder):
    whole = take(loader(folder, seed=3), 15)
    for start in (1, 6, 13):
        assert equal(take(loader(folder, seed=3), 1, start)[0], whole[start])
    assert not equal(take(loader(folder, seed=4), 1)[0], whole[0])


def test_read_split_gives_all_samples_in_shard_order(folder):
    batch = read_split(folder, "test", TOKENIZER)
    assert batch.index.tolist() == list(range(20))
    assert batch.labels["unseen"].tolist() == [n % 2 for n in range(20)]
    assert len(read_split(folder, "test", TOKENIZER, limit=7)) == 7
    assert len(read_split(folder, "test", TOKENIZER, limit=700)) == 20


def test_a_sample_of_a_split_is_drawn_at_random_and_by_its_seed(folder):
    """Not its first pictures: shards are often sorted."""

    def sample(count: int, seed: int = 0) -> list[int]:
        parts = list(sample_split(folder, "test", TOKENIZER, count, seed=seed, batch=3))
        assert all(len(part) == 3 for part in parts[:-1])
        return [index for part in parts for index in part.index.tolist()]

    chosen = sample(8)
    assert len(set(chosen)) == 8
    assert chosen == sorted(chosen) == sample(8) != list(range(8))
    assert sample(8, seed=1) != chosen
    assert sample(700) == list(range(20))
    assert {index for seed in range(40) for index in sample(8, seed)} == set(range(20))


def test_levels_and_sizes_can_be_chosen(folder):
    batch = take(loader(folder, levels=2, max_tokens=30, image_size=8), 1)[0]
    assert batch.images.shape == (8, 3, 8, 8)
    assert batch.text_ids.shape == (8, 2, 30)
    first, last = batch.captions[0][0], batch.captions[0][-1]
    assert [TOKENIZER.decode(ids) for ids in batch.text_ids[0]] == [first, last]


def test_foreign_tars_are_read_without_a_manifest(foreign):
    batch = read_split(foreign, "train", TOKENIZER, config=LoaderConfig(fields=FOREIGN))
    assert batch.keys == [f"k{n}" for n in range(11)]
    assert batch.captions[4] == ["coarse 1", "fine 4"]
    assert batch.labels["group"].tolist() == [n % 4 for n in range(11)]
    assert batch.labels["year"].tolist() == [2000 + n for n in range(11)]
    held_out = read_split(foreign, "val", TOKENIZER, config=LoaderConfig(fields=FOREIGN))
    assert held_out.labels["group"].tolist() == [3, 0, 1], "a word has one number in all splits"
    assert len(take(loader(foreign, batch=4, fields=FOREIGN), 5)) == 5


def test_foreign_samples_that_cannot_be_used_are_counted(tmp_path):
    members = [*foreign_members(0, 4), ("x.json", b'{"captions": ["no picture"]}')]
    members += [("y.jpg", file_bytes(picture(), "JPEG")), ("y.json", b"{")]
    write_tar(tmp_path / "train-0.tar", members)
    with pytest.warns(UserWarning, match=r"2 of 6 samples are bad .* and left out: train-0\.tar:x .*train-0\.tar:y"):
        shards = open_shards(tmp_path, "train", max_bad_share=0.5)
    assert len(shards) == 4
    assert [bad.reason for bad in shards.dropped] == ["no picture", "KEY.json is not JSON"]


def test_missing_things_are_one_clear_error(folder, foreign, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        (lambda: loader(tmp_path / "nowhere"), "no such folder"),
        (lambda: loader(folder, split="valid"), "no split 'valid'; there are test, train"),
        (lambda: loader(foreign, split="test"), "no split 'test'"),
        (lambda: loader(empty), "no \\*.tar"),
        (
            lambda: loader(foreign, fields=Fields(captions="text"), batch=4),
            "captions in the field 'text'",
        ),
    ]
    for attempt, words in cases:
        with pytest.raises(DataError, match=words):
            attempt()
    with pytest.raises(ConfigError, match="50 samples do not fill a batch of 64"):
        loader(folder, batch=64)


def test_a_folder_that_is_not_finished_is_refused(tmp_path):
    scenes_folder(tmp_path / "d", train=20)
    (tmp_path / "d/dataset.json").unlink()
    with pytest.raises(DataError, match="not finished"):
        loader(tmp_path / "d")


@pytest.mark.parametrize("damage", ["cut", "missing", "index", "index gone"])
def test_damaged_shards_are_found_before_step_0(tmp_path, damage):
    folder = tmp_path / "d"
    scenes_folder(folder, train=20)
    before = open_shards(folder, "train").fingerprint
    tar, index = folder / "scenes-train-000001.tar", folder / "scenes-train-000001.index.json"
    if damage == "cut":
        tar.write_bytes(tar.read_bytes()[:-1])
    if damage == "missing":
        tar.unlink()
    if damage == "index":
        index.write_text(index.read_text().replace('"train-00000009"', '"train-00000019"'))
    if damage == "index gone":
        index.unlink()
    with pytest.raises(DataError, match=r"scenes-train-000001"):
        loader(folder)
    source = loader(folder, on_bad_shard="skip")
    assert len(source.shards) == 12
    assert len(source.shards.skipped) == 1
    assert source.shards.fingerprint != before
    assert source.samples == 8


def test_a_manifest_cannot_point_out_of_its_folder(tmp_path):
    folder = tmp_path / "d"
    scenes_folder(folder, train=20)
    text = (folder / "dataset.json").read_text()
    for evil in ("../d/scenes-train-000001.tar", "/etc/passwd"):
        (folder / "dataset.json").write_text(text.replace("scenes-train-000001.tar", evil))
        with pytest.raises(DataError, match=r"dataset\.json"):
            loader(folder)
    for broken in (
        "[]",
        "{}",
        text[: len(text) // 2],
        text.replace('"schema_version": 1', '"schema_version": 2'),
    ):
        (folder / "dataset.json").write_text(broken)
        with pytest.raises(DataError, match=r"dataset\.json"):
            loader(folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_picture_is_named_wherever_it_is_read(tmp_path, workers):
    members = foreign_members(0, 8)
    members[9] = ("k3.jpg", members[9][1][:50])
    write_tar(tmp_path / "train-0.tar", members)
    source = loader(tmp_path, num_workers=workers, shuffle=False)
    with pytest.raises(SeqtokError, match=r"train-0\.tar:k3: .*`prepare\(\)`") as caught:
        take(source, 1)
    assert "Traceback" not in str(caught.value)


def test_pictures_of_several_sizes_need_a_size(tmp_path):
    write_tar(tmp_path / "train-0.tar", foreign_members(0, 3) + foreign_members(3, 3, size=20))
    with pytest.raises(DataError, match="20 x 20 pixels instead of 16 x 16; set image_size"):
        take(loader(tmp_path, batch=6), 1)
    assert take(loader(tmp_path, batch=6, image_size=12), 1)[0].images.shape[-1] == 12


def test_a_dead_worker_is_one_clear_error(folder):
    import multiprocessing

    before = set(multiprocessing.active_children())
    batches = loader(folder, num_workers=1).iterate()
    next(batches)
    for worker in set(multiprocessing.active_children()) - before:
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(DataError, match="loader worker died"):
        list(islice(batches, 50))


EXIT_PROGRAM = """
import multiprocessing, os, signal, sys
from tests.data_pipelines.reading.test_image_text import loader
batches = loader(sys.argv[1], num_workers=1).iterate()
next(batches)
workers = multiprocessing.active_children()
for worker in workers:
    os.kill(worker.pid, signal.SIGTERM)
assert next(batches) is not None and all(worker.is_alive() for worker in workers)
print("alive")
"""


def test_workers_outlive_sigterm_and_end_with_the_program(folder):
    """A preempted trainer still saves; and a program that ends does not wait for its workers for ever."""
    done = subprocess.run(
        [sys.executable, "-c", EXIT_PROGRAM, str(folder)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "alive", done.stderr
    assert done.returncode == 0


def test_fingerprints_tell_changed_data(folder, tmp_path):
    scenes_folder(tmp_path / "same", train=50, size=16)
    scenes_folder(tmp_path / "other", train=51, size=16)
    own = open_shards(folder, "train").fingerprint
    assert open_shards(tmp_path / "same", "train").fingerprint == own
    assert open_shards(tmp_path / "other", "train").fingerprint != own
    assert content(folder) == content(tmp_path / "same")


def test_pixels_are_in_range(folder):
    pixels = take(loader(folder), 1)[0].pixels()
    assert pixels.dtype == torch.float32
    assert float(pixels.min()) >= -1.0
    assert float(pixels.max()) <= 1.0
    assert np.isclose(float(pixels.max()), 1.0, atol=0.2)
