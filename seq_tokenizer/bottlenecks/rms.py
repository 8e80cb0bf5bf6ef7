"""The narrow place that every token passes: D channels of unit root mean square.

With Gaussian noise of std s in training a channel carries at most log2(1 + 1/s^2) / 2 bits (Shannon), so a sequence
carries at most K D / 2 log2(1 + 1/s^2). Shapes: B images, K tokens, W width, D channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RmsBottleneck(nn.Module):
    """Linear to D channels, scaled to unit RMS per token: latents can neither grow nor vanish."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        nn.init.normal_(self.project.weight, std=width**-0.5)
        nn.init.zeros_(self.project.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, K, W) -> (B, K, D)."""
        z = self.project(tokens).float()  # the latent itself is never rounded to 16 bits
        return z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 1e-6)


def rms_bits(length: int, dim: int, noise: float) -> float:
    """Upper bound, in bits, of what `length` latents of `dim` channels carry through noise of that std."""
    return length * dim / 2 * math.log2(1 + noise**-2)
