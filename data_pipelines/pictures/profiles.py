"""Colour profiles (ICC): what a picture's numbers mean where they are not sRGB, and turning them into sRGB.

A profile that gives a sample of colours back as they are is sRGB, whatever it is called: such pixels stay untouched.
One that is damaged, or of another kind of numbers than the picture has, is ignored.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CONVERTED, IGNORED = "colour profile converted", "colour profile ignored"
_SPACES = {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}  # Pillow's mode -> the header's word
_SIGNATURE = b"acsp"
_NEAR = 3  # levels of 255 that profiles of sRGB differ by
_STEPS = 6  # values of each channel in the sample of colours


class Profile(NamedTuple):
    """`mode`: of the pixels that it speaks of, RGB, L or CMYK."""

    data: bytes
    mode: str


@dataclass(frozen=True)
class _Meaning:
    transform: Any = None  # None: leave the numbers as they are
    note: str = ""


def to_srgb(image: Image.Image, profile: Profile) -> tuple[Image.Image | None, str]:
    """(RGB image, or None where the numbers stay as they are; a note). `image` has the profile's mode."""
    meaning = _meaning(profile)
    return None if meaning.transform is None else meaning.transform.apply(image), meaning.note


def pixels_to_srgb(pixels: NDArray[np.uint8], profile: Profile) -> tuple[NDArray[np.uint8], str]:
    """(H, W, 3), gray ones too; pixels that stay as they are are returned themselves."""
    if profile.mode == "L" and profile.data[16:20] == _SPACES["RGB"]:
        profile = Profile(profile.data, "RGB")  # gray is a colour
    if _meaning(profile).transform is None:
        return pixels, _meaning(profile).note
    gray = profile.mode == "L"
    found, note = to_srgb(Image.fromarray(np.ascontiguousarray(pixels[..., 0] if gray else pixels)), profile)
    return np.asarray(found), note


@lru_cache(maxsize=32)
def _meaning(profile: Profile) -> _Meaning:
    from PIL import ImageCms

    data, mode = profile
    if data[36:40] != _SIGNATURE or data[16:20] != _SPACES[mode]:
        return _Meaning(note=IGNORED)
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(data)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return _Meaning(note=IGNORED)
    if mode == "CMYK":
        return _Meaning(transform, CONVERTED)
    colours = _colours(mode)
    found = np.asarray(transform.apply(colours)).astype(int)
    far = np.abs(found - np.asarray(colours.convert("RGB"))).max() > _NEAR
    return _Meaning(transform, CONVERTED) if far else _Meaning()


def _colours(mode: str) -> Image.Image:
    """A sample of all colours of a mode, as an image of one row."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, _STEPS).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))
