"""Patches laid back where they came from; what is absent is gray.

Shapes: B images, K patches of p x p pixels, D = 3 p^2 channels.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from seq_tokenizer.decoders.base import Decoder
from seq_tokenizer.encoders.lossless import LosslessConfig
from seq_tokenizer.orders.grid import OrderName, places
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.embed import unpatchify
from seqtok_core.layers.randomness import Draws


class LaidBackConfig(Config):
    """The order is that of the encoder."""

    kind: Literal["lossless"] = "lossless"
    order: OrderName = "raster"
    seed: Annotated[int, Field(ge=0)] = 0


class LosslessDecoder(Decoder):
    def __init__(self, config: LaidBackConfig, shape: TokenizerShape) -> None:
        super().__init__()
        cells = LosslessConfig(order=config.order, seed=config.seed).cells(shape)
        self.patch, self.size, self.places = shape.patch_size, shape.image_size, places(cells)

    def forward(
        self,
        latents: Tensor,
        num_tokens: Tensor | int,
        draws: Draws | None = None,
        size: tuple[int, int] | None = None,
        states: dict[str, Tensor] | None = None,
    ) -> Tensor:
        if size not in (None, (self.size, self.size)):
            raise ConfigError(f"size={size}: lossless tokens are those of {self.size} x {self.size} pixels")
        count, given, channels = latents.shape
        known = torch.as_tensor(num_tokens, device=latents.device).expand(count)
        kept = latents * (torch.arange(given, device=latents.device) < known[:, None])[..., None]
        whole = torch.cat([kept, kept.new_zeros(count, len(self.places) - given, channels)], 1)
        return unpatchify(whole[:, self.places], self.patch, self.size)
