"""What a batch is: the contract between loaders and models.

Shapes: B images or documents, L caption levels (coarse to fine), M rows, T text tokens, K latents of D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """What every batch carries: the identity of each sample.

    A sample's randomness (crop, prefix length, noise) is a function of (seed, epoch[i], index[i]),
    so that ranks, workers and resumes cannot change it.
    """

    keys: list[str]  # B, unique in the data set
    index: Tensor  # (B,) int64, the sample's position in the data set, before any shuffle
    epoch: Tensor  # (B,) int64

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor, without waiting where the batch is pinned; the rest is shared."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Every tensor in page-locked memory, from which copies to a GPU run beside its work."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = change(value)
            elif isinstance(value, Mapping):
                changed[item.name] = {name: change(tensor) for name, tensor in value.items()}
        return replace(self, **changed)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, kw_only=True)
class _Captioned(_Batch):
    """Captions as ids, and labels."""

    text_ids: Tensor  # (B, L, T) int64, content tokens only (no <bos>, <eos>), padded with 0
    level_mask: Tensor  # (B, L) bool, True where the image has a caption at this level
    caption_ids: Tensor  # (B, L) int64, equal captions have equal ids; -1 where there is none
    labels: Mapping[str, Tensor] = field(default_factory=dict)  # name -> (B,) int64
    captions: list[list[str]] = field(default_factory=list)  # B x (at most L)


@dataclass(frozen=True, kw_only=True)
class ImageTextBatch(_Captioned):
    """Pictures with caption pyramids. Pixels stay uint8 until they are on the model's device."""

    images: Tensor  # (B, 3, H, W) uint8; in memory (B, H, W, 3), as pictures are decoded
    replaced: list[str] = field(default_factory=list)  # pictures that could not be decoded; the next one stands in

    def pixels(self) -> Tensor:
        """(B, 3, H, W) float32 in [-1, 1]."""
        return to_model(self.images)


@dataclass(frozen=True, kw_only=True)
class LatentTextBatch(_Captioned):
    """Encoded pictures with caption pyramids."""

    latents: Tensor  # (B, K, D) float32, as the tokenizer gave them (not standardised)
    codes: Tensor | None = None  # (B, K) or (B, K, Q) int64, discrete tokenizers only
    positions: Tensor | None = None  # (B, K) int64, where the order differs per image


@dataclass(frozen=True, kw_only=True)
class DocumentBatch(_Batch):
    """Texts and encoded pictures in turns, cut behind each picture: a row is a text, perhaps an empty one, and the
    picture after it. M rows, of which a document has the first ones."""

    text_ids: Tensor  # (B, M, T) int64, content tokens only, padded with 0
    latents: Tensor  # (B, M, K, D) float32, as the tokenizer gave them
    rows: Tensor  # (B,) int64
    pictures: Tensor  # (B,) int64, as many as rows, or one less: behind its last picture the document ends


def to_model(pixels: Tensor) -> Tensor:
    """(..., H, W) uint8 -> float32 in [-1, 1], on the same device: what every model takes."""
    return pixels.to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def to_bytes(pixels: Tensor) -> Tensor:
    """(..., H, W) float about in [-1, 1] -> uint8, clipped and rounded: what every model gives."""
    return pixels.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
