"""Rotary position embedding on one or more axes (Su et al. 2021, arXiv:2104.09864).

Shapes: B batch, H heads, N tokens, C channels of a head, A axes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_table(positions: Tensor, head_dim: int, base: float = 100.0) -> Tensor:
    """positions (N, A), may be fractional -> (2, N, head_dim): cosines and signed sines.

    Channels are split evenly over the axes; a token at position 0 on every axis is not turned. The small base
    suits grids and sequences of tens of tokens, where the usual 10000 leaves most channels nearly constant.
    """
    axes = positions.shape[-1]
    half = head_dim // (2 * axes)
    if half == 0:
        raise ValueError(f"head_dim={head_dim} is too small for {axes} axes")
    rate = base ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
    angle = (positions.float()[..., None] * rate).flatten(-2)  # (N, A * half)
    rest = angle.new_zeros(*angle.shape[:-1], head_dim // 2 - angle.shape[-1])
    angle = torch.cat([angle, rest], -1)  # channels that do not divide by the axes stay unturned
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)])


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """x (B, H, N, C), table (2, N, C) or (2, B, 1, N, C) -> (B, H, N, C)."""
    half = x.shape[-1] // 2
    turned = torch.cat([x[..., half:], x[..., :half]], -1)
    return (x * table[0] + turned * table[1]).to(x.dtype)
