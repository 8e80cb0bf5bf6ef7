"""Patches as they are: every token is the pixels of one patch, as Fuyu reads them. Nothing is learnt and nothing lost.

Shapes: B images, N = K patches of p x p pixels, D = 3 p^2 channels.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from seq_tokenizer.encoders.base import Encoder
from seq_tokenizer.orders.grid import ORDERS, OrderName
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.embed import patchify


class LosslessConfig(Config):
    """Which patch comes first."""

    kind: Literal["lossless"] = "lossless"
    order: OrderName = "raster"
    seed: Annotated[int, Field(ge=0)] = 0  # of the order `random`

    def require_sizes(self, shape: TokenizerShape) -> None:
        """Raises ConfigError unless there is a token for every patch and a channel for every number in it."""
        patches, channels = (shape.image_size // shape.patch_size) ** 2, 3 * shape.patch_size**2
        if (shape.num_latents, shape.latent_dim) != (patches, channels):
            raise ConfigError(
                f"a picture of {shape.image_size} pixels is {patches} lossless patches of {channels} numbers: set "
                f"num_latents={patches} and latent_dim={channels}"
            )

    def cells(self, shape: TokenizerShape) -> list[int]:
        """Entry i is the patch, counted row by row, that token i holds."""
        side = shape.image_size // shape.patch_size
        return ORDERS[self.order](side, side, self.seed)


class LosslessEncoder(Encoder):
    def __init__(self, config: LosslessConfig, shape: TokenizerShape) -> None:
        super().__init__()
        self.patch, self.size, self.order = shape.patch_size, shape.image_size, config.cells(shape)

    def forward(self, pixels: Tensor, num_tokens: int | None = None, states: dict[str, Tensor] | None = None) -> Tensor:
        """Raises ConfigError for pictures of another size: there is a token for each patch."""
        if pixels.shape[-2:] != (self.size, self.size):
            raise ConfigError(
                f"a picture of {pixels.shape[2]} x {pixels.shape[3]} pixels; lossless tokens are those of "
                f"{self.size} x {self.size}"
            )
        return patchify(pixels, self.patch)[:, self.order[:num_tokens]]

    def looks(self, pixels: Tensor) -> Tensor:
        return torch.eye(len(self.order), device=pixels.device)[self.order].expand(len(pixels), -1, -1)
