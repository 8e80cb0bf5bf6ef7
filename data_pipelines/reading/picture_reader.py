"""Sample indices -> pixels: decoded into the batch's memory, kept where asked, replaced where damaged, augmented.

Shapes: B images, S = image_size, F = the size that pictures are brought to before they are augmented.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.utils.data import get_worker_info

from data_pipelines.pictures.augment import AugmentConfig, augment
from data_pipelines.pictures.decode import DecodeError, decode_pixels
from data_pipelines.reading.loader import ReadConfig
from data_pipelines.shards.shard_set import ShardSet
from data_pipelines.sources.base import MAX_BAD_SHARE, OnBadSample
from data_pipelines.sources.records import Fields
from seqtok_core.foundation.errors import DataError

OTHER_SIZE = "another size"  # DecodeError's reason for a picture that does not fit the buffer
_IN_A_ROW = 100  # pictures that cannot be decoded, one after another in their shard
_NAMED = 5  # skipped pictures that a warning names; all are counted


class LoaderConfig(ReadConfig):
    """How pictures are read."""

    image_size: Annotated[int, Field(ge=1)] | None = None  # pixels; None: as stored
    fields: Fields = Fields()  # of foreign tars
    augment: AugmentConfig | None = None  # training only: never for measurements and exports
    on_bad_sample: OnBadSample = "error"  # skip: left out; for a damaged picture the next one stands in; all counted
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = MAX_BAD_SHARE  # more bad samples than this are an error


@dataclass(frozen=True)
class Pictures:
    """Pixels of a batch, and whose they are."""

    pixels: Tensor  # (B, S, S, 3) uint8
    index: NDArray[np.int64]  # (B,) asked for, or the next decodable one
    replaced: list[str]  # place and reason of each picture that was not decodable


class PictureReader:
    """A damaged picture is an error, or the next decodable one in storage order stands in for it.

    The rule depends on the data alone, so that batches are the same for all ranks, workers and resumes.
    """

    def __init__(
        self,
        shards: ShardSet,
        size: int,
        *,
        resize: bool,
        on_bad_sample: OnBadSample = "error",
        keep: bool = False,
        augmentation: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        """With `resize` pictures of other sizes are cropped and resized; without, they are an error."""
        self._shards, self._size, self._resize = shards, size, resize
        self._on_bad_sample, self._keep = on_bad_sample, keep
        self._augmentation, self._seed = augmentation, seed
        self._full = (augmentation and augmentation.from_size) or size
        self._kept: Pictures | None = None
        self._bad: dict[int, str] = {}  # samples known to be undecodable

    def read(self, epoch: int, indices: NDArray[np.int64]) -> Pictures:
        """Raises DataError naming the sample whose picture cannot be used."""
        found = self._full_size(indices)
        if self._augmentation is None:
            return found
        pixels = batch_memory(len(indices), self._size)
        source, target = found.pixels.numpy(), pixels.numpy()
        for row, index in enumerate(found.index.tolist()):
            augment(source[row], target[row], self._augmentation, self._seed, epoch, index)
        return Pictures(pixels, found.index, found.replaced)

    def _full_size(self, indices: NDArray[np.int64]) -> Pictures:
        if not self._keep:
            return self._decode(indices)
        if self._kept is None:
            self._kept = self._decode(np.arange(len(self._shards), dtype=np.int64))
        index = self._kept.index[indices]
        replaced = [self._bad[n] for n in indices[index != indices].tolist()]
        return Pictures(self._kept.pixels[torch.from_numpy(indices)], index, replaced)

    def _decode(self, indices: NDArray[np.int64]) -> Pictures:
        pixels = batch_memory(len(indices), self._full, shared=self._augmentation is None)
        rows, index, replaced = pixels.numpy(), indices.copy(), []
        for row, asked in enumerate(indices.tolist()):
            index[row] = self._into(rows[row], asked)
            if index[row] != asked:
                replaced.append(self._bad[asked])
        return Pictures(pixels, index, replaced)

    def _into(self, out: NDArray[np.uint8], asked: int) -> int:
        """Fill `out` with the picture, or with the next decodable one; returns the index of the one it was."""
        for step in range(min(_IN_A_ROW, len(self._shards))):
            index = (asked + step) % len(self._shards)
            if index in self._bad:
                continue
            try:
                self._pixels(index, out)
                return index
            except DecodeError as error:
                place = self._shards.place(index)
                if self._on_bad_sample == "error":
                    raise DataError(
                        f"{place}: {error}; `prepare()` leaves bad samples out, "
                        "`on_bad_sample=skip` takes the next picture instead"
                    ) from None
                self._bad[index] = f"{place}: {error}"
        raise DataError(f"{self._shards.place(asked)}: {_IN_A_ROW} pictures in a row cannot be decoded")

    def _pixels(self, index: int, out: NDArray[np.uint8]) -> None:
        data = self._shards.read_image(index)
        try:
            decode_pixels(data, self._full if self._resize else None, out=out)
        except DecodeError as error:
            if error.reason != OTHER_SIZE:
                raise
            height, width, _ = decode_pixels(data).shape
            raise DataError(
                f"{self._shards.place(index)}: {width} x {height} pixels instead of {out.shape[1]} x {out.shape[0]}; "
                "set image_size to resize while loading"
            ) from None


def batch_memory(count: int, size: int, shared: bool = True) -> Tensor:
    """(count, size, size, 3) uint8; in a worker process in shared memory, so that it travels without a copy."""
    shape = (count, size, size, 3)
    if not shared or get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(count * size * size * 3)  # as torch's own default_collate does
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)  # type: ignore[call-overload]


class BadPictures:
    """Counts samples that cannot be used, of those that this process has met each once; the first are named in a
    warning."""

    def __init__(self, samples: int, max_share: float, *, before: int = 0, instead: str) -> None:
        """`before` of the `samples` were left out before reading began; `instead`: what becomes of a bad one."""
        self.places: set[str] = set()  # each with its reason
        self._samples, self._share, self._before, self._instead = samples, max_share, before, instead

    def count(self, places: list[str]) -> None:
        """Raises DataError when more than `max_share` of the samples are bad."""
        for place in places:
            if place in self.places:
                continue
            self.places.add(place)
            bad = self._before + len(self.places)
            if bad > self._share * self._samples:
                raise DataError(
                    f"{bad} samples of {self._samples} cannot be used, which is above "
                    f"max_bad_share={self._share:g}; the last one: {place}"
                )
            if len(self.places) <= _NAMED:
                more = "; further ones are counted, not shown" if len(self.places) == _NAMED else ""
                warnings.warn(f"{place}: {self._instead}{more}", stacklevel=4)
