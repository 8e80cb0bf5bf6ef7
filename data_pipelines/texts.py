"""Captions and labels of samples as the tensors of a batch; for small data sets encoded once and kept.

Shapes: B samples, L caption levels, T text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.captions import CaptionTokenizer
from data_pipelines.shards import ShardSet


class TextFields(TypedDict):
    """The part of a batch that images and latents have in common."""

    keys: list[str]
    text_ids: Tensor  # (B, L, T) int64
    level_mask: Tensor  # (B, L) bool
    caption_ids: Tensor  # (B, L) int64
    labels: dict[str, Tensor]  # name -> (B,) int64, -1 where a sample has none
    captions: list[list[str]]


@dataclass
class _Kept:
    """All samples of the split; ids take 4 bytes here and 8 in a batch."""

    keys: list[str]
    text_ids: Tensor  # (N, L, T) int32
    level_mask: Tensor
    caption_ids: Tensor
    labels: dict[str, Tensor]
    captions: list[list[str]]


class TextStore:
    """Reads records of a ShardSet on demand, or all of them at the first use when `keep` is set."""

    def __init__(
        self, shards: ShardSet, captions: CaptionTokenizer, levels: int | None, max_tokens: int, keep: bool
    ) -> None:
        """`levels` None means the data set's longest pyramid, so that every batch has the same shape."""
        self.levels = levels or max(shards.levels, 1)
        self._shards, self._captions, self._max_tokens, self._keep = shards, captions, max_tokens, keep
        self._kept: _Kept | None = None

    def fields(self, indices: NDArray[np.int64]) -> TextFields:
        if not self._keep:
            return self._read(indices)
        if self._kept is None:
            everything = self._read(np.arange(len(self._shards)))
            everything["text_ids"] = everything["text_ids"].to(torch.int32)
            self._kept = _Kept(**everything)
        kept, index = self._kept, torch.from_numpy(indices)
        rows = indices.tolist()
        return TextFields(
            keys=[kept.keys[row] for row in rows],
            text_ids=kept.text_ids[index].to(torch.int64),
            level_mask=kept.level_mask[index],
            caption_ids=kept.caption_ids[index],
            labels={name: values[index] for name, values in kept.labels.items()},
            captions=[kept.captions[row] for row in rows],
        )

    def _read(self, indices: NDArray[np.int64]) -> TextFields:
        records = [self._shards.record(index) for index in indices.tolist()]
        captions = [list(record.captions) for record in records]
        text_ids, level_mask, caption_ids = self._captions.encode_batch(captions, self.levels, self._max_tokens)
        return TextFields(
            keys=[record.key for record in records],
            text_ids=text_ids,
            level_mask=level_mask,
            caption_ids=caption_ids,
            labels={
                name: torch.tensor([record.labels[name] for record in records], dtype=torch.int64)
                for name in self._shards.labels
            },
            captions=captions,
        )
