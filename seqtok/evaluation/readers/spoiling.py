"""What generated pictures look like at their worst: blurred, noisy, with a ghost of another one.

A reader that has seen such pictures reads as a person would: what is plainly there. Shapes: B pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def spoil(x: Tensor, generator: torch.Generator) -> Tensor:
    """x (B, 3, H, W) in [-1, 1]. Half of the pictures: blur up to 1.2 pixels, a ghost up to 25 %, noise up to 0.1 (of a
    range of 2)."""
    count = len(x)

    def amount(most: float) -> Tensor:
        drawn = torch.rand(count, generator=generator) * most
        return (drawn * (torch.rand(count, generator=generator) < 0.5)).view(-1, 1, 1, 1)

    sigma = float(torch.rand((), generator=generator)) + 0.2
    x = x.lerp(blur(x, sigma), amount(1.0))
    x = x.lerp(x.roll(1, 0), amount(0.25))  # the picture that a ghost comes from is the neighbour in the batch
    noise = torch.randn(x.shape, generator=generator)
    coarse = torch.randn(count, 3, 8, 8, generator=generator)
    return x + amount(0.1) * noise + amount(0.1) * F.interpolate(coarse, x.shape[-2:], mode="bilinear")


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, 3, H, W) by `sigma` pixels, borders repeated."""
    if sigma <= 0:
        return pixels
    radius = max(1, round(3 * sigma))
    taps = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).repeat(3, 1)
    padded = F.pad(pixels, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, taps[:, None, None], groups=3), taps[:, None, :, None], groups=3)
