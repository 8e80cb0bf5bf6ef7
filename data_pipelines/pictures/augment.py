"""Crops and flips of training pictures, drawn from (seed, epoch, sample index) and from nothing else.

So neither ranks, workers and resumes nor a cache of decoded pictures can change what a sample looks like in an epoch.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.foundation.random_bits import AUGMENT, fractions, philox

_ATTEMPTS = 10  # of a box that lies inside the picture, as in torchvision

Box = tuple[int, int, int, int]  # left, top, width, height; pixels


class AugmentConfig(Config):
    """What is done to a training picture; by default nothing."""

    crop: Literal["none", "shift", "resized"] = "none"
    from_size: Annotated[int, Field(ge=1)] | None = None  # pixels the picture is brought to before; None: image_size
    padding: Annotated[int, Field(ge=0)] = 0  # shift: pixels mirrored around the picture before it is cropped
    scale: tuple[float, float] = (0.5, 1.0)  # resized: share of the area that is kept
    ratio: tuple[float, float] = (0.75, 4 / 3)  # resized: width by height of what is kept
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0  # chance of a mirrored picture

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale={list(self.scale)}: two shares of the area, 0 < smallest <= largest <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio={list(self.ratio)}: two ratios, 0 < smallest <= largest")
        if self.crop == "none" and (self.from_size is not None or self.padding):
            raise ValueError("from_size and padding need crop: shift or crop: resized")
        return self


def needs(config: AugmentConfig | None, image_size: int) -> int:
    """Pixels per side that pictures must have before augmentation. Raises ConfigError when shifts find no room."""
    full = (config and config.from_size) or image_size
    if config is not None and config.crop == "shift":
        if full + 2 * config.padding < image_size:
            raise ConfigError(
                f"augment: from_size={full} with padding={config.padding} is below image_size={image_size}"
            )
        if config.padding >= full:
            raise ConfigError(f"augment: padding={config.padding} must be below the picture's {full} pixels")
    return full


def augment(
    pixels: NDArray[np.uint8], out: NDArray[np.uint8], config: AugmentConfig, seed: int, epoch: int, index: int
) -> None:
    """Fill `out` (S, S, 3) with what this epoch makes of `pixels` (F, F, 3), F + 2 padding >= S for shifts."""
    draws = fractions(philox(seed, AUGMENT + epoch, index), 1 + 4 * _ATTEMPTS)
    size = out.shape[0]
    if config.crop == "shift":
        pixels = _shifted(pixels, size, config.padding, draws[1], draws[2])
    elif config.crop == "resized":
        left, top, width, height = resized_box(pixels.shape[0], config, draws[1:].reshape(-1, 4))
        part = Image.fromarray(pixels[top : top + height, left : left + width])
        pixels = np.asarray(part.resize((size, size), Image.Resampling.BICUBIC))
    out[:] = pixels[:, ::-1] if draws[0] < config.flip else pixels


def resized_box(side: int, config: AugmentConfig, draws: NDArray[np.float64]) -> Box:
    """A box of drawn area and ratio inside a square picture (Szegedy et al. 2014, arXiv:1409.4842, section 6).

    `draws` (attempts, 4) are numbers in [0, 1); where no attempt fits, the whole picture is kept.
    """
    low, high = math.log(config.ratio[0]), math.log(config.ratio[1])
    for share, shape, across, down in draws.tolist():
        area = side * side * (config.scale[0] + share * (config.scale[1] - config.scale[0]))
        ratio = math.exp(low + shape * (high - low))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= side and 0 < height <= side:
            return int(across * (side - width + 1)), int(down * (side - height + 1)), width, height
    return 0, 0, side, side


def _shifted(pixels: NDArray[np.uint8], size: int, padding: int, across: float, down: float) -> NDArray[np.uint8]:
    if padding:
        pixels = np.pad(pixels, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    room = pixels.shape[0] - size + 1
    left, top = int(across * room), int(down * room)
    return pixels[top : top + size, left : left + size]
