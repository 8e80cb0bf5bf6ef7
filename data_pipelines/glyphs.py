"""Drawn glyphs: random characters on a plain page, to find out how many of them a code can hold.

A page is a pure function of (seed, split, index): n characters, each drawn independently and evenly from the alphabet,
in n of the 64 cells of an 8 x 8 grid. Characters carry n log2(alphabet) bits, none of which can be guessed from the
others; where they stand carries log2 C(64, n) more. A cell is as high as the font's size, 12 pixels at least.
Shapes: A characters of the alphabet, c pixels per side of a cell.
"""

from __future__ import annotations

import hashlib
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.scenes import Split, sample_generator
from seqtok_core.foundation.errors import ConfigError

SIDE = 8  # cells per side of a page
CELLS = SIDE**2
LEAST_CELL = 12  # pixels: below it letters run together whatever the code is
PAGE_SIZE = SIDE * LEAST_CELL
COUNTS = (1, 2, 4, 8, 16, 32, 64)  # characters of a page
ALPHABET = string.ascii_uppercase + string.digits
_UNASSIGNED = "\U0010ffff"  # no character, so every font draws its sign for what it does not have


@dataclass(frozen=True)
class Page:
    """`characters[i]`, a place in the alphabet, stands in `cells[i]`, counted in reading order from 0."""

    cells: tuple[int, ...]
    characters: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Typeface:
    """How each character of an alphabet is drawn."""

    alphabet: str
    ink: NDArray[np.uint8]  # (A, c, c), 0 none, 255 full

    @property
    def page_size(self) -> int:
        """Pixels per side."""
        return SIDE * self.ink.shape[1]

    @property
    def sha256(self) -> str:
        """Of what is drawn, whatever the font's file is called."""
        return hashlib.sha256(self.alphabet.encode() + self.ink.tobytes()).hexdigest()

    def text(self, page: Page) -> str:
        """Its characters in reading order."""
        return "".join(self.alphabet[character] for character in page.characters)


def make_page(
    seed: int, index: int, split: Split = "train", counts: Sequence[int] = COUNTS, alphabet_size: int = len(ALPHABET)
) -> Page:
    """The page number `index` of a split; how many characters it has is drawn from `counts`."""
    rng = sample_generator(seed, index, split)
    count = int(counts[int(rng.integers(len(counts)))])
    cells = sorted(rng.permutation(CELLS)[:count].tolist())
    return Page(tuple(cells), tuple(rng.integers(alphabet_size, size=count).tolist()))


def draw_page(page: Page, typeface: Typeface) -> NDArray[np.uint8]:
    """(S, S, 3) uint8 RGB: black on white."""
    side = typeface.ink.shape[1]
    paper = np.zeros((SIDE, side, SIDE, side), np.uint8)
    for cell, character in zip(page.cells, page.characters, strict=True):
        paper[cell // SIDE, :, cell % SIDE] = typeface.ink[character]
    gray = 255 - paper.reshape(SIDE * side, SIDE * side)
    return np.repeat(gray[..., None], 3, axis=2)


def require_page_size(size: int, what: str) -> int:
    """Pixels per side of a cell on pages of `size`. Raises ConfigError, which begins with `what`, where glyphs of
    LEAST_CELL pixels do not fit or cells are not whole."""
    if size < PAGE_SIZE or size % SIDE:
        raise ConfigError(
            f"{what} pages of {size} pixels; {SIDE} x {SIDE} glyphs of at least {LEAST_CELL} pixels need "
            f"{PAGE_SIZE} or more, a multiple of {SIDE}"
        )
    return size // SIDE


def require_counts(counts: Sequence[int]) -> tuple[int, ...]:
    """In ascending order, each once. Raises ConfigError for what a page cannot hold."""
    wrong = [count for count in counts if not 1 <= count <= CELLS]
    if wrong or not counts:
        raise ConfigError(f"glyphs: {wrong[0] if wrong else 'none'} on a page; give numbers from 1 to {CELLS}")
    return tuple(sorted(set(counts)))


def load_typeface(alphabet: str = ALPHABET, font: Path | None = None, cell: int = LEAST_CELL) -> Typeface:
    """Draw each character of `alphabet` once, in the middle of its cell; `font` None: the one that Pillow brings.

    Raises ConfigError for an alphabet of which something cannot be read: a character that the font does not have, that
    draws nothing, or that looks like another one.
    """
    repeated = [character for character, times in Counter(alphabet).items() if times > 1]
    if len(alphabet) < 2 or repeated:
        what = f"has {repeated[0]!r} more than once" if repeated else f"{alphabet!r} has fewer than two characters"
        raise ConfigError(f"alphabet: {what}; give different characters in a row, such as ABC")
    loaded, name = _load_font(font, cell), font or "Pillow's own font"
    missing = _drawn(_UNASSIGNED, loaded, cell)
    ink = [_drawn(character, loaded, cell) for character in alphabet]
    drawn_as: dict[bytes, str] = {}
    for character, own in zip(alphabet, ink, strict=True):
        if not own.any() or np.array_equal(own, missing):
            raise ConfigError(f"alphabet: {name} has no {character!r}; leave it out, or name a font that has it")
        other = drawn_as.setdefault(own.tobytes(), character)
        if other != character:
            raise ConfigError(f"alphabet: {name} draws {other!r} and {character!r} alike; leave one of them out")
    return Typeface(alphabet, np.stack(ink))


def _load_font(font: Path | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if font is None:
        return ImageFont.load_default(size=size)
    try:
        return ImageFont.truetype(str(font), size, layout_engine=ImageFont.Layout.BASIC)
    except (OSError, ValueError) as error:
        raise ConfigError(f"font {font}: cannot be read as a font ({error}); name a .ttf or .otf file") from None


def _drawn(character: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, cell: int) -> NDArray[np.uint8]:
    """(c, c) ink with the character in the middle; what is larger than its cell, as W is in wide fonts, is squeezed."""
    left, top, right, bottom = (round(edge) for edge in font.getbbox(character))
    width, height = right - left, bottom - top
    paper = np.zeros((cell, cell), np.uint8)
    if not width or not height:
        return paper
    own = Image.new("L", (width, height))
    ImageDraw.Draw(own).text((-left, -top), character, fill=255, font=font)
    fitted = own.resize((min(width, cell), min(height, cell)), Image.Resampling.BOX)
    x, y = (cell - fitted.width) // 2, (cell - fitted.height) // 2
    paper[y : y + fitted.height, x : x + fitted.width] = np.asarray(fitted)
    return paper
