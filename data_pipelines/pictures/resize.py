"""Pixels -> a square of the wanted size: upright, short side to size, centre crop.

How much of a JPEG is decoded at a reduced scale (`jpeg_halvings`) was chosen by measurement: quality against an
anti-aliased reference and time stand in benchmarks/results/image_path.json, the rule in docs/images.md.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Resize = Literal["fast", "exact"]  # exact: no JPEG is decoded at a reduced scale
_OVERSAMPLING = 2  # a reduced scale that is resized further keeps this many pixels per wanted pixel
_SCALES = (3, 2, 1)  # halvings that libjpeg has fast code for


def square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) -> (size, size, 3); anti-aliased bicubic. A picture of that size is returned as it is.

    Where the short side already fits, the middle is cut out and no pixel changes.
    """
    height, width = pixels.shape[:2]
    if min(height, width) == size:
        top, left = (height - size) // 2, (width - size) // 2
        return pixels[top : top + size, left : left + size]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box))


def jpeg_halvings(short: int, size: int | None, resize: Resize) -> int:
    """How often a JPEG whose short side has `short` pixels may be halved while it is decoded, 0 to 3.

    A scale is taken when it lands on `size`, or when twice `size` is left for the bicubic filter. (As ADM's pictures
    are made, by halving and then bicubic, arXiv:2105.05233; there a picture may be halved to just above `size`.)
    """
    if size is None or resize == "exact":
        return 0
    for halvings in _SCALES:
        left = -(-short >> halvings)
        if left == size or left >= _OVERSAMPLING * size:
            return halvings
    return 0


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo what EXIF orientation 1 to 8 says of (H, W, 3) pixels; a view."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]
