"""Shards -> batches of pictures with caption pyramids, the same for any number of ranks, workers and resumes.

Shapes: B images, H = W the image size, L caption levels, T text tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from data_pipelines.captions import CaptionTokenizer
from data_pipelines.decode import DecodeError, decode_pixels
from data_pipelines.loading import ReadConfig, SplitLoader
from data_pipelines.order import StepPlan
from data_pipelines.records import Fields
from data_pipelines.samples import ImageTextBatch
from data_pipelines.shards import open_shards
from data_pipelines.texts import TextStore
from seqtok_core.foundation.errors import DataError


class LoaderConfig(ReadConfig):
    """How pictures are read."""

    image_size: Annotated[int, Field(ge=1)] | None = None  # pixels; None: as stored
    fields: Fields = Fields()  # of foreign tars


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
        reader = ImageReader(Path(folder), split, captions, config)
        plan = StepPlan(global_batch, micro_batch or max(global_batch // world, 1), rank, world)
        super().__init__(reader.batch, reader.shards, plan, config, seed)
        self.image_size = reader.image_size


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


class ImageReader:
    """Sample indices -> batch."""

    def __init__(
        self,
        folder: Path,
        split: str,
        captions: CaptionTokenizer,
        config: LoaderConfig,
        one_pass: bool = False,
    ) -> None:
        self.shards = open_shards(folder, split, config.fields, config.on_bad_shard)
        own = self.shards.manifest
        self.image_size = config.image_size or (own and own.image_size) or self._stored_size()
        self._resize = config.image_size is not None
        keep = not one_pass and config.keeps(len(self.shards) * 3 * self.image_size**2)
        self._texts = TextStore(self.shards, captions, config.levels, config.max_tokens, keep)
        self._kept: Tensor | None = None
        self._keep = keep

    def __len__(self) -> int:
        return len(self.shards)

    def batch(self, epoch: int, indices: NDArray[np.int64]) -> ImageTextBatch:
        """Raises DataError naming the sample whose picture or record cannot be read."""
        index = torch.from_numpy(indices)
        return ImageTextBatch(
            images=self._images(index),
            index=index,
            epoch=torch.full_like(index, epoch),
            **self._texts.fields(indices),
        )

    def _images(self, index: Tensor) -> Tensor:
        """(B, 3, H, W) uint8."""
        if not self._keep:
            return self._decode(index.tolist())
        if self._kept is None:
            self._kept = self._decode(range(len(self)))
        return self._kept[index]

    def _decode(self, indices: list[int] | range) -> Tensor:
        size = self.image_size
        images = torch.empty((len(indices), 3, size, size), dtype=torch.uint8)
        view = images.numpy()
        for row, index in enumerate(indices):
            view[row] = self._pixels(index).transpose(2, 0, 1)
        return images

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        try:
            pixels = decode_pixels(self.shards.read_image(index), self.image_size if self._resize else None)
        except DecodeError as error:
            place = self.shards.place(index)
            raise DataError(f"{place}: {error}; `seqtok data prepare` leaves bad samples out") from None
        if pixels.shape[:2] != (self.image_size, self.image_size):
            raise DataError(
                f"{self.shards.place(index)}: {pixels.shape[1]} x {pixels.shape[0]} pixels instead of "
                f"{self.image_size} x {self.image_size}; set image_size to resize while loading"
            )
        return pixels

    def _stored_size(self) -> int:
        try:
            height, width, _ = decode_pixels(self.shards.read_image(0)).shape
        except DecodeError as error:
            raise DataError(f"{self.shards.place(0)}: {error}") from None
        if height != width:
            raise DataError(f"{self.shards.place(0)}: {width} x {height} pixels; set image_size to crop and resize")
        return height
