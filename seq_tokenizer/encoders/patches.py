"""Lossless patches and their places: what every encoder reads first.

Shapes: B images, n patches.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.embed import grid_positions, patchify, sincos

_FARTHEST = 4.0  # of a pixel from 0: a resampled or decoded picture leaves [-1, 1] by a little


def patch_positions(shape: TokenizerShape, rows: int, columns: int, device: torch.device) -> Tensor:
    """(rows * columns, W) position features; the longest wavelength is four sides of a training picture."""
    side = shape.image_size // shape.patch_size
    cells = grid_positions(rows, columns).to(device)
    if shape.positions != "absolute":  # from the picture's middle, in cells of the training grid
        size = torch.tensor([rows, columns], device=device)
        spanned = size if shape.positions == "per_axis" else size.max()
        cells = (cells - (size - 1) / 2) * (side / spanned) + (side - 1) / 2
    return sincos(cells, shape.width, 4.0 * max(side, 2))


def require_patches(height: int, width: int, patch: int) -> None:
    """Raises ConfigError where a picture of that size cannot be cut into patches."""
    if height < patch or width < patch or height % patch or width % patch:
        near = tuple(max(round(side / patch), 1) * patch for side in (height, width))
        raise ConfigError(
            f"a picture of {height} x {width} pixels is not made of patches of {patch}; the nearest is "
            f"{near[0]} x {near[1]}"
        )


def check_pixels(pixels: Tensor, patch: int) -> None:
    """Raises ConfigError unless these are pictures as a model takes them."""
    if not isinstance(pixels, Tensor):
        raise ConfigError(f"pictures are a tensor (B, 3, H, W), not a {type(pixels).__name__}; see torch.from_numpy")
    asked = f"pictures of shape {tuple(pixels.shape)}: (B, 3, H, W) with H and W multiples of the patch, {patch}"
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ConfigError(asked)
    try:
        require_patches(pixels.shape[2], pixels.shape[3], patch)
    except ConfigError as error:
        raise ConfigError(f"{asked}; {error}") from None
    if not pixels.is_floating_point():
        raise ConfigError(f"pictures of {pixels.dtype}: make them float in [-1, 1], data_pipelines.samples.to_model")
    if pixels.numel() and not pixels.is_meta and not float(pixels.detach().abs().amax()) <= _FARTHEST:  # NaN, too
        raise ConfigError(
            f"pixels from {float(pixels.min()):.3g} to {float(pixels.max()):.3g}: pictures are float in [-1, 1], "
            "as data_pipelines.samples.to_model makes them of bytes"
        )


class PatchConfig(Config):
    """What encoders that read patches have in common."""

    # Channels of the first of log2(p) convolutions of stride 2 (Xiao et al., 2106.14881) that are added to the patches:
    # they know the same edge wherever it lies, and look beyond the borders of a patch. 0: none.
    stem_channels: Annotated[int, Field(ge=0)] = 0


class PatchInput(nn.Module):
    """Raw pixels, cut into patches and projected orthogonally: nothing is lost where W >= 3 p^2.

    A small MLP over the same raw pixels is added: it sees edges and corners before they are narrowed to W.
    """

    MUON_EXCLUDED = ("project.weight",)

    def __init__(self, config: PatchConfig, shape: TokenizerShape) -> None:
        super().__init__()
        self.shape, self.patch = shape, shape.patch_size
        values, width = 3 * self.patch**2, shape.width
        self.stem = ConvolutionStem(config.stem_channels, self.patch, width) if config.stem_channels else None
        self.project = nn.Linear(values, width)
        self.corners = nn.Sequential(nn.Linear(values, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        nn.init.orthogonal_(self.project.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, W)."""
        rows, columns = pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch
        where = patch_positions(self.shape, rows, columns, pixels.device)
        patches = patchify(pixels, self.patch)
        x = self.project(patches) + self.corners(patches) + where.to(pixels.dtype)
        return x if self.stem is None else x + self.stem(pixels)


class ConvolutionStem(nn.Sequential):
    """(B, 3, H, W) -> (B, N, width): the picture halved until a pixel is a patch."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        steps = patch.bit_length() - 1
        if 2**steps != patch:
            raise ConfigError(f"`stem_channels`: patch_size={patch} is no power of two, which a stem by halves needs")
        sizes = [3, *(channels * 2**i for i in range(steps))]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.GroupNorm(1, after), nn.GELU()]
        super().__init__(*layers, nn.Conv2d(sizes[-1], width, 1), nn.Flatten(2))

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels).transpose(1, 2)
