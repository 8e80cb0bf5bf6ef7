"""Grids of small pictures: one image growing with its tokens, and prompts against prefix lengths.

Pixels are enlarged by repetition, never smoothed: what is seen is what was decoded.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

_GAP = 6  # pixels between two cells of a grid
_HEADER = 18  # pixels above a grid for the column names
_TALL = 8192  # pixels of a page that can be looked at
_PAPER, _INK = (255, 255, 255), (70, 76, 86)


def to_image(picture: Tensor, scale: int = 1) -> Image.Image:
    """(3, H, W) uint8 -> PIL, every pixel repeated `scale` times."""
    array = np.ascontiguousarray(picture.permute(1, 2, 0).cpu().numpy())
    image = Image.fromarray(array, "RGB")
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def as_tensor(image: Image.Image) -> Tensor:
    """A sheet -> (3, H, W) uint8."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def data_uri(picture: Tensor) -> str:
    """(3, H, W) uint8 -> "data:image/png;base64,...", lossless and at its own size."""
    stream = io.BytesIO()
    to_image(picture).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def grid(rows: Sequence[Sequence[Tensor]], columns: Sequence[str] = (), scale: int = 3) -> Image.Image:
    """Rows of (3, H, W) uint8 pictures of one size -> one image, with column names above when given."""
    height, width = rows[0][0].shape[-2] * scale, rows[0][0].shape[-1] * scale
    top = _HEADER if columns else 0
    most = max(len(row) for row in rows)
    size = (most * (width + _GAP) + _GAP, top + len(rows) * (height + _GAP) + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        pen.text((_GAP + column * (width + _GAP) + width // 2, _GAP), name, fill=_INK, anchor="mt")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            place = (_GAP + x * (width + _GAP), top + _GAP + y * (height + _GAP))
            sheet.paste(to_image(picture, scale), place)
    return sheet


def rows_of_a_page(height: int) -> int:
    """How many rows of pictures of that height fit on one page of a grid; at least one."""
    return max(1, (_TALL - _HEADER - _GAP) // (height + _GAP))


def redrawings(originals: Tensor, redrawn: Tensor, kept: Sequence[int], scale: int = 3) -> Image.Image:
    """originals (n, 3, H, W), redrawn (n, S, P, 3, H, W) -> S rows for each of n: with so many tokens kept, and the
    original."""
    pairs = zip(originals, redrawn, strict=True)
    rows = [[*row, original] for original, own in pairs for row in own]
    return grid(rows, [*(f"{k}" for k in kept), "original"], scale)


def strip(
    originals: Tensor, rebuilt: Tensor, prefixes: Sequence[int], scale: int = 3, drawn: Tensor | None = None
) -> Image.Image:
    """originals (n, 3, H, W), rebuilt (n, P, 3, H, W) -> n rows: k = 1, 2, 4, ... K and the original; below each the
    rows of `drawn` (n, S, P, 3, H, W), where there are some."""
    rows: list[list[Tensor]] = []
    for number, original in enumerate(originals):
        rows.append([*rebuilt[number], original])
        rows += [] if drawn is None else [list(row) for row in drawn[number]]
    return grid(rows, [*(f"{k}" for k in prefixes), "original"], scale)
