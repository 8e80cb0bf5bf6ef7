"""Laws of loading: an epoch in pieces, resampling, augmentation, damaged pictures, and workers of every kind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from data_pipelines.pictures.augment import AugmentConfig
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading import loader as loading
from data_pipelines.reading.image_text import ImageTextLoader, read_split
from data_pipelines.reading.loader import ReadConfig
from data_pipelines.reading.picture_reader import LoaderConfig, batch_memory
from data_pipelines.reading.stream import StreamConfig
from data_pipelines.samples import ImageTextBatch
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.sources.test_folders import put
from tests.data_pipelines.sources.test_tables import opened
from tests.data_pipelines.toy import file_bytes, foreign_members, picture, scenes_folder, vocabulary, write_tar

TOKENIZER = vocabulary()
AUGMENT = AugmentConfig(crop="resized", flip=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "scenes"
    scenes_folder(path, train=50, size=16)
    return path


def loader(folder, *, rank=0, world=1, batch=8, micro=None, seed=0, **config) -> ImageTextLoader:
    settings = {"seed": seed, "global_batch": batch, "micro_batch": micro, "rank": rank, "world": world}
    return ImageTextLoader(folder, "train", TOKENIZER, LoaderConfig(**config), **settings)


def take(source: ImageTextLoader, count: int, start: int = 0) -> list[ImageTextBatch]:
    return list(islice(source.iterate(start), count))


def same(one: list[ImageTextBatch], other: list[ImageTextBatch]) -> bool:
    names = ("images", "index", "epoch", "text_ids", "level_mask", "caption_ids")
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(getattr(a, n), getattr(b, n)) for a, b in pairs for n in names) and all(
        a.keys == b.keys and a.captions == b.captions and a.replaced == b.replaced for a, b in pairs
    )


def test_an_epoch_stopped_and_continued_with_other_ranks_and_workers_is_the_epoch(folder):
    """1 rank with 2 workers for 3 of 12 steps, then 2 ranks with 1 worker each."""
    whole = take(loader(folder, batch=4), 12)
    before = take(loader(folder, batch=4, num_workers=2), 3)
    after = [take(loader(folder, batch=4, rank=rank, world=2, num_workers=1), 9, start=3) for rank in range(2)]
    seen = [int(n) for part in (before, *after) for batch in part for n in batch.index]
    assert sorted(seen) == sorted(int(n) for batch in whole for n in batch.index)
    assert len(set(seen)) == len(seen) == 48
    for batch, left, right in zip(whole[3:], *after, strict=True):
        assert torch.equal(batch.images, torch.cat([left.images, right.images]))


KINDS = [
    {"num_workers": 2},
    {"cache": False},
    {"num_workers": 1, "cache": True},
    pytest.param({"num_workers": 1, "start_method": "spawn"}, marks=pytest.mark.slow),
    pytest.param({"num_workers": 1, "start_method": "forkserver"}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", [{}, {"mode": "resample"}, {"augment": AUGMENT}])
def test_how_it_is_read_changes_no_batch(folder, kind, rule):
    assert same(take(loader(folder, **rule), 8, start=2), take(loader(folder, **rule, **kind), 8, start=2))


def test_how_it_is_read_may_differ_when_a_run_continues():
    reading = {"num_workers", "prefetch", "start_method", "pin_memory", "cache"}
    assert ReadConfig.resumable_keys() == LoaderConfig.resumable_keys() == reading
    assert StreamConfig.resumable_keys() == {"allow_remote"}


@pytest.mark.parametrize(("limit", "kept"), [(60_000, False), (120_000, True)])
def test_captions_count_when_it_is_decided_what_is_kept(folder, monkeypatch, limit, kept):
    """50 pictures take 38,400 bytes, what is kept of their captions about 50,000."""
    monkeypatch.setattr(loading, "_AUTO_CACHE", limit)
    source = loader(folder)
    expected = take(loader(folder, cache=True), 3)
    assert same(take(source, 3), expected)
    assert source._fetch.__self__._texts.keep == kept
    assert (source._fetch.__self__._pictures._kept is not None) == kept


def test_pictures_lie_in_memory_as_they_were_decoded(folder):
    for kind in ({}, {"cache": False}, {"num_workers": 1}, {"augment": AUGMENT}):
        images = take(loader(folder, **kind), 1)[0].images
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.shape == (8, 3, 16, 16)


class Probe(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> bool:
        return batch_memory(2, 4).is_shared()


def test_workers_decode_into_shared_memory_so_that_nothing_is_copied():
    assert list(DataLoader(Probe(), batch_size=None, num_workers=1)) == [True]
    assert not Probe()[0]
    assert batch_memory(2, 4).shape == (2, 4, 4, 3)


def test_resampling_draws_each_step_anew_and_continues_anywhere(folder):
    whole = take(loader(folder, mode="resample"), 30)
    assert [int(batch.epoch[0]) for batch in whole] == list(range(30))
    assert same(take(loader(folder, mode="resample"), 2, start=17), whole[17:19])
    halves = [take(loader(folder, mode="resample", rank=rank, world=2), 30) for rank in range(2)]
    for batch, left, right in zip(whole, *halves, strict=True):
        assert batch.keys == left.keys + right.keys
    counts = np.bincount(torch.cat([batch.index for batch in whole]).numpy(), minlength=50)
    assert counts.max() > 5, "with replacement"
    assert (counts > 0).sum() > 40


def test_weights_of_shards_are_patterns_of_their_names(folder):
    weights = {"*-000001.tar": 1.0, "*": 0.0}
    for batch in take(loader(folder, mode="resample", weights=weights), 5):
        assert set(batch.index.tolist()) <= set(range(8, 16))
    with pytest.raises(ConfigError, match=r"no shard's name fits 'x\*'"):
        loader(folder, mode="resample", weights={"x*": 2.0})
    with pytest.raises(ConfigError, match="mode: resample"):
        loader(folder, weights=weights)


def test_augmentation_follows_the_sample_whatever_the_batches_are(folder):
    plain = {int(n): image for b in take(loader(folder), 6) for n, image in zip(b.index, b.images, strict=True)}
    first = take(loader(folder, augment=AUGMENT), 12)
    other = take(loader(folder, augment=AUGMENT, batch=4, micro=2), 24)
    seen = {(int(e), int(n)): image for b in other for e, n, image in zip(b.epoch, b.index, b.images, strict=True)}
    changed = 0
    for batch in first:
        for epoch, n, image in zip(batch.epoch, batch.index, batch.images, strict=True):
            if (int(epoch), int(n)) in seen:
                assert torch.equal(seen[int(epoch), int(n)], image)
            changed += not torch.equal(plain.get(int(n), image), image)
    assert changed > 60
    assert torch.equal(
        read_split(folder, "train", TOKENIZER, 8, LoaderConfig(augment=AUGMENT)).images,
        read_split(folder, "train", TOKENIZER, 8).images,
    ), "measurements see the pictures as they are"


def test_pictures_can_be_larger_than_what_is_cropped_from_them(folder):
    crop = AugmentConfig(crop="shift", from_size=16)
    plain = {int(n): image for b in take(loader(folder), 6) for n, image in zip(b.index, b.images, strict=True)}
    for batch in take(loader(folder, image_size=12, augment=crop), 5):
        assert batch.images.shape == (8, 3, 12, 12)
        for n, image in zip(batch.index.tolist(), batch.images, strict=True):
            windows = plain[n].unfold(1, 12, 1).unfold(2, 12, 1).permute(1, 2, 0, 3, 4).reshape(25, 3, 12, 12)
            assert any(torch.equal(image, window) for window in windows)
    with pytest.raises(ConfigError, match="from_size=8 with padding=0 is below image_size=16"):
        loader(folder, augment=AugmentConfig(crop="shift", from_size=8))


@pytest.fixture
def damaged(tmp_path):
    """Samples 3, 4 and 11 of 12 cannot be decoded."""
    members = foreign_members(0, 12)
    for n in (3, 4, 11):
        members[3 * n] = (f"k{n}.jpg", members[3 * n][1][:50])
    write_tar(tmp_path / "train-0.tar", members)
    return tmp_path


STANDS_IN = {3: 5, 4: 5, 11: 0}


@pytest.mark.parametrize("kind", [{}, {"cache": False}, {"num_workers": 2}])
def test_the_next_picture_stands_in_for_a_damaged_one_everywhere(damaged, kind):
    settings = {"on_bad_sample": "skip", "max_bad_share": 0.5, "batch": 4}
    asked = take(loader(write_sound(damaged), batch=4), 6)
    source = loader(damaged, **settings, **kind)
    with pytest.warns(UserWarning, match=r"train-0\.tar:k3: .*another picture is taken in its place"):
        got = take(source, 6)
    for want, batch in zip(asked, got, strict=True):
        assert batch.index.tolist() == [STANDS_IN.get(n, n) for n in want.index.tolist()]
        assert batch.keys == [f"k{n}" for n in batch.index.tolist()]
        assert batch.captions == [[f"coarse {n % 3}", f"fine {n}"] for n in batch.index.tolist()]
        assert len(batch.replaced) == sum(n in STANDS_IN for n in want.index.tolist())
    assert len(source.bad.places) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranks = [take(loader(damaged, **settings, **kind, rank=rank, world=2), 6) for rank in range(2)]
    assert [left.keys + right.keys for left, right in zip(*ranks, strict=True)] == [batch.keys for batch in got]


def write_sound(folder):
    write_tar(folder / "sound/train-0.tar", foreign_members(0, 12))
    return folder / "sound"


def test_more_damaged_pictures_than_allowed_stop_the_run(damaged):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"2 samples of 12 cannot be used, which is above max_bad_share=0\.1"):
            take(loader(damaged, on_bad_sample="skip", max_bad_share=0.1, batch=4), 6)
    with pytest.raises(DataError, match="`on_bad_sample=skip` takes the next picture"):
        take(loader(damaged, batch=4), 6)


def test_a_split_without_a_decodable_picture_is_an_error(tmp_path):
    members = [(name, data if name.endswith("json") else data[:60]) for name, data in foreign_members(0, 6)]
    write_tar(tmp_path / "train-0.tar", members)
    with pytest.raises(DataError, match="in a row cannot be decoded"):
        take(loader(tmp_path, on_bad_sample="skip", max_bad_share=1.0, batch=2, image_size=16), 1)


def test_the_size_is_that_of_the_first_decodable_picture(tmp_path):
    members = foreign_members(0, 6)
    members[0] = ("k0.jpg", b"")
    write_tar(tmp_path / "train-0.tar", members)
    assert loader(tmp_path, on_bad_sample="skip", max_bad_share=1.0, batch=2).image_size == 16
    with pytest.raises(DataError, match="k0: empty file; set image_size"):
        loader(tmp_path, batch=2)


def test_a_picture_of_another_size_is_not_a_damaged_one(tmp_path):
    write_tar(tmp_path / "train-0.tar", foreign_members(0, 3) + foreign_members(3, 3, size=20))
    with pytest.raises(DataError, match="20 x 20 pixels instead of 16 x 16; set image_size"):
        take(loader(tmp_path, batch=6, on_bad_sample="skip", max_bad_share=1.0), 1)


def test_pictures_that_are_not_jpeg_are_read_as_well(tmp_path):
    members = []
    for n, form in enumerate(["PNG", "WEBP", "GIF", "BMP", "JPEG"]):
        members.append((f"k{n}.{form.lower()}", file_bytes(picture(n, (16, 16)), form)))
        members.append((f"k{n}.json", b'{"captions": ["a"]}'))
    write_tar(tmp_path / "train-0.tar", members)
    images = read_split(tmp_path, "train", TOKENIZER).images
    assert torch.equal(images[0], torch.from_numpy(np.asarray(picture(0, (16, 16))).copy()).permute(2, 0, 1))
    assert images.shape == (5, 3, 16, 16)


def test_the_error_of_a_killed_worker_names_it_and_the_shard_it_read(folder):
    others = set(multiprocessing.active_children())
    batches = loader(folder, num_workers=2, window=1, shuffle=False).iterate()
    next(batches)
    victim = next(child for child in multiprocessing.active_children() if child not in others)
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(
        DataError, match=rf"worker \d \(process {victim.pid}\) while reading .*scenes-train-00000\d\.tar:train-"
    ):
        list(islice(batches, 80))


def test_memory_is_pinned_only_where_there_is_a_gpu(folder):
    for asked in (None, True, False):
        options = ReadConfig(pin_memory=asked).worker_options()
        assert options.pin_memory == (torch.cuda.is_available() and asked is not False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take(loader(folder, pin_memory=True, num_workers=1), 1)


@pytest.mark.gpu
@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_pinned_for_a_gpu(folder, num_workers):
    expected = take(loader(folder, pin_memory=False), 3)
    batches = take(loader(folder, num_workers=num_workers), 3)
    assert all(batch.images.is_pinned() and batch.text_ids.is_pinned() for batch in batches)
    moved = [batch.to("cuda").to("cpu") for batch in batches]
    torch.cuda.synchronize()
    assert same(moved, expected)


def test_sorted_classes_that_a_window_does_not_mix_are_warned_of(tmp_path):
    put(tmp_path / "in", {f"class{c}/{n}.png": None for c in range(4) for n in range(10)})
    for how, per_shard, warned in (("off", 2, True), ("off", 10, False), ("on", 2, False)):
        out = tmp_path / f"{how}{per_shard}"
        prepare(opened(tmp_path / "in"), out, PrepareConfig(size=16, samples_per_shard=per_shard, shuffle=how))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loader(out, batch=4)
            loader(out, batch=4, shuffle=False)
        texts = [str(item.message) for item in caught if "sorted by" in str(item.message)]
        assert len(texts) == warned, texts
        assert not warned or "sorted by label, and 8 of 20 shards" in texts[0]
