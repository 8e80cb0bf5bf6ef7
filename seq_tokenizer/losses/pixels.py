"""Squared error of pixels and of edges, for a short prefix and for the whole sequence.

Every image is decoded twice, from k latents and from all: the second alone teaches late tokens well. With one
decoding per image, of which 40 % were whole, PSNR at K was 1.6 dB lower after the same steps.
Shapes: B images, K latents.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.shape import Positive
from seqtok_core.foundation.config import Config


class PixelsConfig(Config):
    """How much pictures count, and what in them."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    # An image decoded from k latents counts (k / K) ** length_weight: squared errors fall with k, and unweighted the
    # short prefixes' unavoidable error drowns the gradient of the long ones (21.6 against 22.7 dB at K, 300 steps).
    length_weight: Annotated[float, Field(ge=0)] = 0.7
    # Weight of the error's gradient: a wrong corner costs few pixels but is another shape.
    edge_weight: Annotated[float, Field(ge=0)] = 4.0
    # Prefixes of 1, 2, ... tokens owe the picture averaged over blocks of this many pixels, longer ones all of it:
    # what is asked of the first token is then not one sharp quadrant.
    gist: tuple[Positive, ...] = ()


class PixelsTerm(Term):
    needs_pictures: ClassVar[bool] = True

    def __init__(self, config: PixelsConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        error = view.decoded - torch.cat([self._owed(view), view.pixels])
        short, whole = (_power(error) + self.config.edge_weight * _edge_power(error)).chunk(2)
        weight = (view.prefix / view.latents.shape[1]) ** self.config.length_weight
        loss = (weight * short + whole).mean()
        return self.config.weight * loss, {"pixel_loss": loss.detach()}

    def _owed(self, view: View) -> Tensor:
        """(B, 3, H, W) what the drawn prefixes are to show."""
        owed = view.pixels
        for side in sorted(set(self.config.gist)):
            lengths = torch.tensor([k for k, block in enumerate(self.config.gist, 1) if block == side])
            rows = torch.isin(view.prefix, lengths.to(view.prefix.device))
            owed = torch.where(rows[:, None, None, None], block_means(view.pixels, side), owed)
        return owed


def block_means(pixels: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) -> the same shape, each block of side x side pixels (smaller at the far borders) its mean."""
    means = F.avg_pool2d(pixels, side, ceil_mode=True, count_include_pad=False)
    return means.repeat_interleave(side, -2).repeat_interleave(side, -1)[..., : pixels.shape[-2], : pixels.shape[-1]]


def _power(error: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B,) mean square."""
    return error.square().mean((1, 2, 3))


def _edge_power(error: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B,) mean square of differences of neighbours: high where edges are wrong or blurred."""
    return _power(error.diff(dim=-1)) + _power(error.diff(dim=-2))
