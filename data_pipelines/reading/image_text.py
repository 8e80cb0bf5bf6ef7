"""Shards -> batches of pictures with caption pyramids, the same for any number of ranks, workers and resumes.

Shapes: B images, H = W the image size, L caption levels, T text tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.pictures.augment import needs
from data_pipelines.pictures.decode import DecodeError, decode_pixels
from data_pipelines.reading.loader import SplitLoader
from data_pipelines.reading.order import StepPlan
from data_pipelines.reading.picture_reader import BadPictures, LoaderConfig, PictureReader
from data_pipelines.reading.texts import TextStore
from data_pipelines.samples import ImageTextBatch
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.base import OnBadSample
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.random_bits import SAMPLED, fractions, philox


class ImageTextLoader(SplitLoader[ImageTextBatch]):
    """Endless batches of a split of pictures; see SplitLoader."""

    def __init__(
        self,
        folder: Path,
        split: str,
        captions: CaptionTokenizer,
        config: LoaderConfig,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`micro_batch` defaults to `global_batch` / `world`. Raises DataError or ConfigError."""
        reader = ImageReader(Path(folder), split, captions, config, seed=seed)
        plan = StepPlan(global_batch, micro_batch or max(global_batch // world, 1), rank, world)
        super().__init__(reader.batch, reader.shards, plan, config, seed)
        self.image_size = reader.image_size
        dropped = len(self.shards.dropped)
        self.bad = BadPictures(
            len(self.shards) + dropped,
            config.max_bad_share,
            before=dropped,
            instead="another picture is taken in its place",
        )

    def iterate(self, start_step: int = 0) -> Iterator[ImageTextBatch]:
        """As SplitLoader's. Raises DataError when more than max_bad_share of the samples are bad."""
        for batch in super().iterate(start_step):
            self.bad.count(batch.replaced)
            yield batch


def read_split(
    folder: Path,
    split: str,
    captions: CaptionTokenizer,
    limit: int | None = None,
    config: LoaderConfig | None = None,
) -> ImageTextBatch:
    """The whole split, or its first `limit` samples in shard order, as one batch of epoch 0."""
    reader = ImageReader(Path(folder), split, captions, config or LoaderConfig(), one_pass=True)
    count = len(reader) if limit is None else min(limit, len(reader))
    return reader.batch(0, np.arange(count, dtype=np.int64))


def sample_split(
    folder: Path,
    split: str,
    captions: CaptionTokenizer,
    count: int,
    config: LoaderConfig | None = None,
    *,
    seed: int = 0,
    batch: int = 256,
) -> Iterator[ImageTextBatch]:
    """`count` samples of the split, chosen at random by `seed` (all where it has fewer), `batch` at once."""
    reader = ImageReader(Path(folder), split, captions, config or LoaderConfig(), one_pass=True)
    chosen = np.argsort(fractions(philox(seed, SAMPLED), len(reader)), kind="stable")[:count]
    chosen.sort()  # shards are read one after the other
    for start in range(0, len(chosen), batch):
        yield reader.batch(0, chosen[start : start + batch].astype(np.int64))


class ImageReader:
    """Sample indices -> batch."""

    def __init__(
        self,
        folder: Path,
        split: str,
        captions: CaptionTokenizer,
        config: LoaderConfig,
        one_pass: bool = False,
        seed: int = 0,
    ) -> None:
        """`one_pass`: every sample is read once and as it is, without a cache and without augmentation."""
        self.shards = open_shards(
            folder,
            split,
            config.fields,
            config.on_bad_shard,
            on_bad_sample=config.on_bad_sample,
            max_bad_share=config.max_bad_share,
        )
        own = self.shards.manifest
        stored = (own and own.image_size) or None
        self.image_size = config.image_size or stored or self._stored_size(config.on_bad_sample)
        augmentation = None if one_pass else config.augment
        full = needs(augmentation, self.image_size)
        self._texts = TextStore(self.shards, captions, config.levels, config.max_tokens, config.captioned_share)
        needed = len(self.shards) * 3 * full**2 + self._texts.bytes_needed
        keep = self._texts.keep = not one_pass and config.keeps(needed)
        self._pictures = PictureReader(
            self.shards,
            self.image_size,
            resize=config.image_size is not None or full != self.image_size,
            on_bad_sample=config.on_bad_sample,
            keep=keep,
            augmentation=augmentation,
            seed=seed,
        )

    def __len__(self) -> int:
        return len(self.shards)

    def batch(self, epoch: int, indices: NDArray[np.int64]) -> ImageTextBatch:
        """Raises DataError naming the sample whose picture or record cannot be read."""
        found = self._pictures.read(epoch, indices)
        index = torch.from_numpy(found.index)
        return ImageTextBatch(
            images=found.pixels.permute(0, 3, 1, 2),
            index=index,
            epoch=torch.full_like(index, epoch),
            replaced=found.replaced,
            **self._texts.fields(found.index),
        )

    def _stored_size(self, on_bad_sample: OnBadSample) -> int:
        for index in range(len(self)):
            try:
                height, width, _ = decode_pixels(self.shards.read_image(index)).shape
            except DecodeError as error:
                if on_bad_sample == "error":
                    raise DataError(f"{self.shards.place(index)}: {error}; set image_size") from None
                continue
            if height != width:
                place = self.shards.place(index)
                raise DataError(f"{place}: {width} x {height} pixels; set image_size to crop and resize")
            return height
        raise DataError(f"{self.shards.paths[0].parent}: no picture can be decoded")
