"""What travels between page and server: latents as base64 of float32, pictures as PNG, requests as JSON.

Shapes: K latents of D channels, k <= K.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from seqtok_core.foundation.errors import ConfigError

Text = Annotated[str, Field(max_length=2000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Kept = Annotated[int, Field(ge=0)]  # tokens; what is too many is said by the models


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PrefixQuery(_Query):
    """What the first `k` tokens show and say. `captions` that they are held against; None: those of the data."""

    latents: str
    k: Annotated[int, Field(ge=1)]
    captions: Annotated[list[Text], Field(max_length=200)] | None = None


class SwapQuery(_Query):
    """The first `k` tokens of two pictures exchanged."""

    first: str
    second: str
    k: Kept


class DrawQuery(_Query):
    """What follows the first `k` tokens, drawn; with a prompt, or from the tokens alone. `watch`: show every token."""

    prompt: Text | None = None
    latents: str | None = None
    k: Kept = 0
    seed: Seed = 0
    guidance: float | None = None  # None: as on the command line
    temperature: float | None = None
    watch: bool = False


class CaptionQuery(_Query):
    """What the first `k` tokens show, in words; of several `candidates` the one that the picture is drawn from best."""

    latents: str
    k: Annotated[int, Field(ge=1)]
    level: Kept | None = None
    candidates: Annotated[int, Field(ge=1, le=64)] = 1
    seed: Seed = 0


def to_base64(latents: Tensor) -> str:
    """(K, D) -> the bytes of its float32 values, little-endian."""
    return base64.b64encode(latents.float().cpu().contiguous().numpy().astype("<f4").tobytes()).decode("ascii")


def from_base64(text: str, length: int, dim: int) -> Tensor:
    """-> (k, D) float32, 1 <= k <= K. Raises ConfigError for what is no latents of that shape."""
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise ConfigError("latents: not base64 of float32 values; open the picture again") from None
    if not 1 <= values.size <= length * dim or values.size % dim:
        raise ConfigError(
            f"latents: {values.size} values, not 1 to {length} tokens of {dim}; they are another model's: open the "
            "picture again"
        )
    if not np.isfinite(values).all():
        raise ConfigError("latents: values that are no numbers; open the picture again")
    return torch.from_numpy(values.reshape(-1, dim))


def heat(maps: Tensor) -> str:
    """maps (K, rows, columns) -> base64 of K rows columns bytes, each map scaled to its own highest value, 255."""
    scaled = maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return base64.b64encode(scaled.mul(255).round().byte().cpu().numpy().tobytes()).decode("ascii")
