"""Pixels to patches and back, and features of positions and times.

Shapes: B images, 3 channels, H x W pixels, p patch size, N = H W / p^2 patches.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) -> (B, N, 3 p^2), row by row. Bit-exact with `unpatchify`."""
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(patches: Tensor, patch: int, height: int) -> Tensor:
    """(B, N, 3 p^2) -> (B, 3, H, W) for pictures of `height` pixels."""
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", p=patch, q=patch, h=height // patch)


def blend_patches(patches: Tensor, patch: int, overlap: int, size: tuple[int, int]) -> Tensor:
    """(B, N, 3 (p + 2 o)^2) -> (B, 3, H, W): patches that reach o pixels into their neighbours and fade into them."""
    side = patch + 2 * overlap
    place = torch.arange(side, device=patches.device) + 0.5
    ramp = (torch.minimum(place, side - place) / (2 * overlap)).clamp(max=1.0)  # those of two neighbours sum to 1
    window = ramp[:, None] * ramp
    faded = rearrange(patches.float(), "b n (c k l) -> b n c k l", k=side, l=side) * window

    def fold(values: Tensor) -> Tensor:
        columns = rearrange(values, "b n c k l -> b (c k l) n")
        return F.fold(columns, size, side, padding=overlap, stride=patch)

    return fold(faded) / fold(window.expand(1, patches.shape[1], 1, -1, -1))  # not 1 at the picture's edge


def grid_positions(rows: int, columns: int) -> Tensor:
    """(rows * columns, 2) float32: the row and column of each cell, row by row."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()


def sincos(positions: Tensor, width: int, longest: float) -> Tensor:
    """Fixed features of unit scale. positions (N, A), in cells -> (N, width), width split evenly over the A axes.

    Wavelengths run geometrically from 2 cells, where neighbours differ most, to `longest` cells: with the usual
    ones of hundreds of cells the places of a 4 x 4 grid are hardly told apart, and training stalls for long.
    """
    axes = positions.shape[-1]
    half = width // (2 * axes)
    if 2 * axes * half != width:
        raise ValueError(f"width={width} is not a multiple of {2 * axes}")
    share = torch.arange(half, device=positions.device) / max(half - 1, 1)
    rate = math.pi * (2.0 / longest) ** share  # radians per cell
    angle = positions.float()[..., None] * rate + 0.5  # (N, A, half); the shift keeps sin(pi n) from vanishing
    return torch.cat([angle.sin(), angle.cos()], -1).flatten(-2) * math.sqrt(2.0)


def time_features(t: Tensor, width: int, fastest: float = 1000.0) -> Tensor:
    """Flow time t (M,) in [0, 1] -> (M, width) (Ho et al. 2020, with t scaled by 1000, the `fastest` radians of it)."""
    half = width // 2
    rate = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device) / half)
    angle = fastest * t.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], -1)
