"""Channels of unit root mean square, and Gaussian noise in training.

With noise of std s a channel carries at most log2(1 + 1/s^2) / 2 bits (Shannon), so a token carries at most
D / 2 log2(1 + 1/s^2). More noise on the first tokens leaves them room for what their captions say and for little
else. Shapes: B images, K tokens, W width, D channels.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.bottlenecks.base import Bottled, Bottleneck
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.layers.randomness import Draws

Noise = Annotated[float, Field(ge=0)]


class RmsConfig(Config):
    """Unit-RMS latents, blurred in training."""

    kind: Literal["rms"] = "rms"
    # Standard deviation of what is added in training: one for all tokens, or one each, the last for all that follow.
    noise: Noise | Annotated[tuple[Noise, ...], Field(min_length=1)] = 0.1

    def noise_of(self, length: int) -> tuple[float, ...]:
        """Of each of `length` tokens."""
        listed = self.noise if isinstance(self.noise, tuple) else (self.noise,)
        return (*listed[:length], *listed[-1:] * (length - len(listed)))


class RmsBottleneck(Bottleneck):
    """Linear to D channels, scaled to unit RMS per token: latents can neither grow nor vanish."""

    def __init__(self, config: RmsConfig, shape: TokenizerShape) -> None:
        super().__init__()
        self.config, self.dim = config, shape.latent_dim
        self.project = nn.Linear(shape.width, shape.latent_dim)
        nn.init.normal_(self.project.weight, std=shape.width**-0.5)
        nn.init.zeros_(self.project.bias)

    def forward(self, h: Tensor, draws: Draws | None) -> Bottled:
        clean = z = unit_rms(self.project(h).float())  # the latent itself is never rounded to 16 bits
        if draws is not None:
            noise = torch.tensor(self.config.noise_of(z.shape[1]), device=z.device)
            z = z + noise[:, None] * draws.normal("latent noise", tuple(z.shape[1:]))
        return Bottled(z, None, self.bits(z.shape[1]), {}, clean=clean)

    def bits(self, length: int) -> float:
        return sum(noisy_bits(self.dim, std) for std in self.config.noise_of(length))


def unit_rms(x: Tensor) -> Tensor:
    """Each vector (…, D) scaled to unit root mean square."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def noisy_bits(channels: int, noise: float) -> float:
    """What so many channels of unit power carry at most through noise of this std."""
    return math.inf if noise == 0 else channels / 2 * math.log2(1 + noise**-2)
