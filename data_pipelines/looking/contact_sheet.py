"""A sheet of pictures with their keys and captions, as one looks at a data set before spending a GPU on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.captions.clean import normalise_caption
from data_pipelines.looking.inspect import own_manifest
from data_pipelines.pictures.decode import DecodeError, decode_pixels
from data_pipelines.shards.shard_set import ShardSet, open_shards
from data_pipelines.sources.base import MAX_BAD_SHARE
from data_pipelines.sources.records import Fields
from data_pipelines.tars.names import find_tars
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import atomic_write

_COLUMNS = 6
_CELL, _GAP, _MARGIN = 192, 16, 24  # pixels
_TITLE, _KEY, _TEXT = 17, 11, 12  # sizes of type, in pixels
_LINE = 17  # pixels from one line to the next
_COARSE_LINES, _FINE_LINES = 2, 4
_EDGE = (222, 222, 218)
_PAPER, _MAT, _INK, _FADED = (255, 255, 255), (244, 244, 242), (25, 27, 31), (105, 110, 118)
_ELLIPSIS = "…"


@dataclass(frozen=True)
class SheetRow:
    """One picture of a sheet; `pixels` (H, W, 3) uint8, or why there is none."""

    key: str
    split: str
    captions: tuple[str, ...]
    pixels: np.ndarray | str


def contact_sheet(
    folder: Path, out: Path, fields: Fields | None = None, count: int = 24, max_bad_share: float = MAX_BAD_SHARE
) -> int:
    """Write a PNG of `count` pictures, evenly over the folder's splits. Returns how many it shows.

    Raises DataError when the folder holds no pictures.
    """
    folder = Path(folder)
    own = own_manifest(folder)
    if own is not None and own.kind != "images":
        raise DataError(f"{folder}: holds {own.kind}; a contact sheet shows pictures")
    splits = sorted(own.splits, key=_usual_order) if own else sorted(find_tars(folder), key=_usual_order)
    shown: list[SheetRow] = []
    for number, split in enumerate(splits):
        share = count // len(splits) + (number < count % len(splits))
        shown += _of_split(open_shards(folder, split, fields, max_bad_share=max_bad_share), split, share)
    sheet = draw_sheet(shown, f"{folder.resolve().name}: {len(shown)} of its pictures, evenly over {', '.join(splits)}")
    with atomic_write(out) as stream:
        sheet.save(stream, "PNG")
    return len(shown)


def draw_sheet(shown: Sequence[SheetRow], title: str) -> Image.Image:
    """Rows as high as their longest captions."""
    rows = [shown[start : start + _COLUMNS] for start in range(0, len(shown), _COLUMNS)]
    heights = [max(_height(item) for item in row) for row in rows]
    width = 2 * _MARGIN + _COLUMNS * _CELL + (_COLUMNS - 1) * _GAP
    top = _MARGIN + _TITLE + _GAP
    sheet = Image.new("RGB", (width, top + sum(heights) + _GAP * len(heights) + _MARGIN - _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN - 4), _cut(title, _font(_TITLE), width - 2 * _MARGIN), fill=_INK, font=_font(_TITLE))
    for row, height in zip(rows, heights, strict=True):
        for column, item in enumerate(row):
            _draw(sheet, pen, item, _MARGIN + column * (_CELL + _GAP), top)
        top += height + _GAP
    return sheet


def _usual_order(split: str) -> tuple[int, str]:
    known = ("train", "val", "test")
    return (known.index(split) if split in known else len(known), split)


def _of_split(shards: ShardSet, split: str, count: int) -> list[SheetRow]:
    found = []
    for index in np.unique(np.linspace(0, len(shards) - 1, min(count, len(shards))).astype(int)).tolist():
        record = shards.record(index)
        try:
            pixels: np.ndarray | str = decode_pixels(shards.read_image(index))
        except DecodeError as error:
            pixels = str(error)
        found.append(SheetRow(record.key, split, record.captions, pixels))
    shards.close()
    return found


def _texts(item: SheetRow) -> tuple[list[str], list[str]]:
    """Lines of the coarsest caption, and of the finest if it is another one."""
    if not item.captions:
        return ["(no caption)"], []
    coarse = wrap_text(item.captions[0], _font(_TEXT), _CELL, _COARSE_LINES)
    fine = item.captions[-1] if len(item.captions) > 1 else ""
    return coarse, wrap_text(fine, _font(_TEXT), _CELL, _FINE_LINES)


def _height(item: SheetRow) -> int:
    coarse, fine = _texts(item)
    return _CELL + 6 + _LINE * (1 + len(coarse) + len(fine)) + 4


def _draw(sheet: Image.Image, pen: ImageDraw.ImageDraw, item: SheetRow, left: int, top: int) -> None:
    pen.rectangle((left, top, left + _CELL - 1, top + _CELL - 1), fill=_MAT)
    if isinstance(item.pixels, str):
        for n, line in enumerate(wrap_text(f"not readable: {item.pixels}", _font(_TEXT), _CELL - 16, 6)):
            pen.text((left + 8, top + 8 + n * _LINE), line, fill=(170, 40, 30), font=_font(_TEXT))
    else:
        picture = _fitted(Image.fromarray(item.pixels))
        sheet.paste(picture, (left + (_CELL - picture.width) // 2, top + (_CELL - picture.height) // 2))
    pen.rectangle((left - 1, top - 1, left + _CELL, top + _CELL), outline=_EDGE)  # white pictures end somewhere
    coarse, fine = _texts(item)
    y = top + _CELL + 6
    key = _cut(f"{item.split} · {item.key}", _font(_KEY), _CELL)
    lines = [(key, _FADED, _KEY), *((line, _INK, _TEXT) for line in coarse), *((line, _FADED, _TEXT) for line in fine)]
    for text, ink, size in lines:
        pen.text((left, y), text, fill=ink, font=_font(size))
        y += _LINE


def _fitted(picture: Image.Image) -> Image.Image:
    """Small pictures enlarged by whole numbers, so that each pixel is seen; large ones filtered down."""
    longest = max(picture.size)
    if longest <= _CELL:
        scale = max(1, _CELL // longest)
        return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    size = (max(1, round(picture.width * _CELL / longest)), max(1, round(picture.height * _CELL / longest)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """At most `lines` lines that fit into `width` pixels; what is left out is marked by an ellipsis."""
    found: list[str] = []
    rest = normalise_caption(text)  # composed characters, no line breaks
    while rest and len(found) < lines:
        if len(found) == lines - 1:
            return [*found, _cut(rest, font, width)]
        line = _first_line(rest, font, width)
        found.append(line)
        rest = rest[len(line) :].lstrip()
    return found


def _first_line(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As many whole words as fit; a word that is too long is broken."""
    words = text.split(" ")
    line = ""
    for word in words:
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) > width:
            break
        line = longer
    return line or _longest_start(text.split(" ")[0], font, width)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    return _longest_start(text, font, width - font.getlength(_ELLIPSIS)).rstrip() + _ELLIPSIS


def _longest_start(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """By halving: captions can be long. At least one character."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width else (low, middle - 1)
    return text[:low]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and so exists everywhere: Latin, Greek, Cyrillic, Arabic, symbols.
    Pillow's own type knows ASCII alone. Characters that it lacks are drawn as boxes."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
