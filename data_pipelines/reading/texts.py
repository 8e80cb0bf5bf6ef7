"""Captions and labels of samples as the tensors of a batch; for small data sets encoded once and kept.

Shapes: B samples, N samples of the split, L caption levels, T text tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.shards.shard_set import ShardSet
from seqtok_core.foundation.packed import Packed, pack

_CHUNK = 1024  # samples read at once while the store is filled
_TEXT_GUESS = 100  # bytes of a caption


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
    """All samples of the split, without a Python object per sample; ids take 4 bytes here and 8 in a batch."""

    names: Packed  # JSON of (key, captions)
    text_ids: Tensor  # (N, L, T) int32
    level_mask: Tensor
    caption_ids: Tensor
    labels: dict[str, Tensor]


def told_captions(key: str, captions: Sequence[str], share: float) -> list[str]:
    """A sample's captions, or none: which samples have theirs depends on key and share alone, and those of a share have
    them of every larger one."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
    return list(captions) if number < share * 2**64 else []


class TextStore:
    """Reads records of a ShardSet on demand, or all of them at the first use when `keep` is set."""

    def __init__(
        self,
        shards: ShardSet,
        captions: CaptionTokenizer,
        levels: int | None,
        max_tokens: int,
        captioned_share: float = 1.0,
    ) -> None:
        """`levels` None means the data set's longest pyramid, so that every batch has the same shape."""
        self.levels = levels or max(shards.levels, 1)
        self.keep = False
        self._captioned_share = captioned_share
        self._shards, self._captions, self._max_tokens = shards, captions, max_tokens
        self._kept: _Kept | None = None

    @property
    def bytes_needed(self) -> int:
        """Memory that keeping takes, roughly: ids, masks, identities, keys, and captions of a usual length."""
        captions = max(self._shards.levels, 1) * (_TEXT_GUESS + 8)
        return len(self._shards) * (self.levels * (4 * self._max_tokens + 9) + captions + 32)

    def fields(self, indices: NDArray[np.int64]) -> TextFields:
        if not self.keep:
            return self._read(indices)
        if self._kept is None:
            self._kept = self._read_all()
        kept, index = self._kept, torch.from_numpy(indices)
        names = [json.loads(kept.names[row]) for row in indices.tolist()]
        return TextFields(
            keys=[key for key, _ in names],
            text_ids=kept.text_ids[index].to(torch.int64),
            level_mask=kept.level_mask[index],
            caption_ids=kept.caption_ids[index],
            labels={name: values[index] for name, values in kept.labels.items()},
            captions=[captions for _, captions in names],
        )

    def _read(self, indices: NDArray[np.int64]) -> TextFields:
        records = [self._shards.record(index) for index in indices.tolist()]
        captions = [told_captions(record.key, record.captions, self._captioned_share) for record in records]
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

    def _read_all(self) -> _Kept:
        count = len(self._shards)
        kept = _Kept(
            names=pack(()),
            text_ids=torch.zeros(count, self.levels, self._max_tokens, dtype=torch.int32),
            level_mask=torch.zeros(count, self.levels, dtype=torch.bool),
            caption_ids=torch.zeros(count, self.levels, dtype=torch.int64),
            labels={name: torch.zeros(count, dtype=torch.int64) for name in self._shards.labels},
        )
        kept.names = pack(self._fill(kept))
        return kept

    def _fill(self, kept: _Kept) -> Iterator[bytes]:
        for start in range(0, len(self._shards), _CHUNK):
            part = self._read(np.arange(start, min(start + _CHUNK, len(self._shards))))
            place = slice(start, start + len(part["keys"]))
            kept.text_ids[place] = part["text_ids"].to(torch.int32)
            kept.level_mask[place], kept.caption_ids[place] = part["level_mask"], part["caption_ids"]
            for name, values in part["labels"].items():
                kept.labels[name][place] = values
            for pair in zip(part["keys"], part["captions"], strict=True):
                yield json.dumps(pair).encode()
