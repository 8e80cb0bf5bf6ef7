"""Lossless patches and their places: what every encoder reads first.

Shapes: B images, n patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq_tokenizer.config import TokenizerConfig
from seqtok_core.layers.embed import grid_positions, patchify, sincos


def patch_positions(config: TokenizerConfig, rows: int, columns: int, device: torch.device) -> Tensor:
    """(rows * columns, W) position features; the longest wavelength is four sides of a training picture."""
    longest = 4.0 * max(config.image_size // config.patch_size, 2)
    return sincos(grid_positions(rows, columns).to(device), config.width, longest)


class PatchInput(nn.Module):
    """Raw pixels, cut into patches and projected orthogonally: nothing is lost where W >= 3 p^2.

    A small MLP over the same raw pixels is added: it sees edges and corners before they are narrowed to W.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config, self.patch = config, config.patch_size
        values, width = 3 * self.patch**2, config.width
        self.project = nn.Linear(values, width)
        self.corners = nn.Sequential(nn.Linear(values, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        nn.init.orthogonal_(self.project.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, W)."""
        rows, columns = pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch
        where = patch_positions(self.config, rows, columns, pixels.device)
        patches = patchify(pixels, self.patch)
        return self.project(patches) + self.corners(patches) + where.to(pixels.dtype)
