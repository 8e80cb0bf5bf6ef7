"""Scales: a grid of features as a residual pyramid of latents, from one for the whole picture to many small ones.

VAR (Tian et al. 2024, arXiv:2404.02905, algorithm 1) without its codebook: at each scale what is still missing is
averaged over cells, made a latent, and what that latent says is subtracted on the full grid before the next scale.
Shapes: B images, N features on a grid, S scales of n cells, K = n_1 + ... + n_S latents, W width, D channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from seq_tokenizer.bottlenecks.base import Bottled, Bottleneck
from seq_tokenizer.bottlenecks.rms import noisy_bits, unit_rms
from seq_tokenizer.shape import Positive, TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws

Scales = tuple[tuple[int, int], ...]


class PyramidConfig(Config):
    """Scales of unit-RMS latents, blurred in training."""

    kind: Literal["pyramid"] = "pyramid"
    scales: tuple[tuple[Positive, Positive], ...] = ((1, 1), (1, 2), (2, 2), (3, 3))  # rows and columns, coarse to fine
    grid: tuple[Positive, Positive] | None = None  # of the features; None: the least that holds the finest scale
    noise: Annotated[float, Field(ge=0)] = 0.1  # std of what is added in training

    @model_validator(mode="after")
    def _coarse_to_fine(self) -> Self:
        pairs = zip(self.scales[:-1], self.scales[1:], strict=True)
        if not self.scales or any(b[0] < a[0] or b[1] < a[1] for a, b in pairs):
            raise ValueError(f"scales={_shown(self.scales)}: each must be at least as fine as the one before it")
        return self

    def features(self, shape: TokenizerShape) -> tuple[int, int]:
        """Rows and columns of the grid that is read. Raises ConfigError where it, or K, does not fit."""
        side, (rows, columns) = shape.image_size // shape.patch_size, self.scales[-1]
        areas = sum(rows * columns for rows, columns in self.scales)
        if areas != shape.num_latents:
            raise ConfigError(
                f"bottleneck.scales={_shown(self.scales)} have {areas} cells, num_latents={shape.num_latents}; "
                "each latent is one cell of one scale"
            )
        possible = [n for n in range(1, side + 1) if side % n == 0]
        if self.grid is None and max(rows, columns) <= side:
            return min(n for n in possible if n >= rows), min(n for n in possible if n >= columns)
        grid = self.grid or (side, side)
        if grid[0] not in possible or grid[1] not in possible or grid[0] < rows or grid[1] < columns:
            raise ConfigError(
                f"bottleneck.grid={grid[0]} x {grid[1]} must divide the {side} x {side} patches of a picture and hold "
                f"the finest scale, {rows} x {columns}"
            )
        return grid


class PyramidBottleneck(Bottleneck):
    """Latents of unit RMS, scale by scale, row by row within a scale."""

    def __init__(self, config: PyramidConfig, shape: TokenizerShape) -> None:
        super().__init__()
        self.config, self.dim = config, shape.latent_dim
        self.project = nn.Linear(shape.width, shape.latent_dim)
        self.pyramid = ResidualPyramid(config.scales, config.features(shape), shape.latent_dim)
        self.groups = self.pyramid.areas
        nn.init.normal_(self.project.weight, std=shape.width**-0.5)
        nn.init.zeros_(self.project.bias)

    def forward(self, h: Tensor, draws: Draws | None) -> Bottled:
        features = unit_rms(self.project(h).float())
        noise = None
        if draws is not None:
            noise = self.config.noise * draws.normal("latent noise", (sum(self.groups), self.dim))
        z, left = self.code(features, noise)
        return Bottled(z, None, self.bits(z.shape[1]), {} if draws is None else {"residual_loss": left})

    def code(self, features: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """features (B, N, D), noise (B, K, D) -> latents (B, K, D) and what the scales leave, see ResidualPyramid.

        Finer scales see the noise of coarser ones, and mend it.
        """

        def narrow(mean: Tensor, rows: slice) -> Tensor:
            return unit_rms(mean) if noise is None else unit_rms(mean) + noise[:, rows]

        return self.pyramid(features, narrow)

    def bits(self, length: int) -> float:
        return noisy_bits(length * self.dim, self.config.noise)


class ResidualPyramid(nn.Module):
    """What all pyramids share, whatever makes a mean a latent (a unit vector here, an entry of a codebook in VAR).

    A latent of unit RMS has lost its length, so each scale has a gain, and a small convolution over what is spread
    (VAR's phi). They learn from what each scale leaves behind and from nothing else: at this optimum no scale leaves
    more than it found, whatever the latents are good for elsewhere. Area means and bicubic spreading are fixed
    matrices: their gradients are the same bits each time, which those of torch's kernels on a GPU are not.
    """

    def __init__(self, scales: Scales, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.grid, self.areas = grid, tuple(rows * columns for rows, columns in scales)
        self.gains = nn.Parameter(torch.full((len(scales),), 0.5))
        self.smooth = nn.Parameter(torch.zeros(len(scales), dim, dim, 3, 3))
        for index, scale in enumerate(scales):
            self.register_buffer(f"mean_{index}", _resize(grid, scale, "area"), persistent=False)
            self.register_buffer(f"spread_{index}", _resize(scale, grid, "bicubic"), persistent=False)

    def forward(self, features: Tensor, narrow: Callable[[Tensor, slice], Tensor]) -> tuple[Tensor, Tensor]:
        """features (B, N, D) -> latents (B, K, D), and the mean square of what a scale leaves, which trains the gains.

        `narrow` makes means (B, n, D) latents, whose rows it is told.
        """
        latents, left, start = [], features.new_zeros(()), 0
        with torch.autocast(features.device.type, enabled=False):
            for index, area in enumerate(self.areas):
                z = narrow(self.get_buffer(f"mean_{index}") @ features, slice(start, start + area))
                left = left + (features.detach() - self._told(z.detach(), index, learn=True)).square().mean()
                features = features - self._told(z, index, learn=False)
                latents.append(z)
                start += area
        return torch.cat(latents, 1), left / len(self.areas)

    def sums(self, latents: Tensor) -> Tensor:
        """(B, K, D) -> (B, S, N, D): what the first 1 ... S scales say of the features."""
        with torch.autocast(latents.device.type, enabled=False):
            parts = latents.float().split(self.areas, 1)
            return torch.stack([self._told(z, index, learn=False) for index, z in enumerate(parts)], 1).cumsum(1)

    def _told(self, latents: Tensor, index: int, learn: bool) -> Tensor:
        """(B, n, D) of one scale -> (B, N, D)."""
        gain, smooth = self.gains[index], self.smooth[index]
        if not learn:
            gain, smooth = gain.detach(), smooth.detach()
        spread = self.get_buffer(f"spread_{index}") @ (gain * latents)
        picture = rearrange(spread, "b (h w) d -> b d h w", h=self.grid[0])
        return spread + rearrange(F.conv2d(picture, smooth, padding=1), "b d h w -> b (h w) d")


def _resize(old: tuple[int, int], new: tuple[int, int], mode: str) -> Tensor:
    """(new cells, old cells): torch's interpolation as a matrix."""
    cells = torch.eye(old[0] * old[1]).reshape(-1, 1, *old)
    return F.interpolate(cells, new, mode=mode).reshape(len(cells), -1).T.contiguous()


def _shown(scales: Scales) -> str:
    return ", ".join(f"{rows} x {columns}" for rows, columns in scales)
