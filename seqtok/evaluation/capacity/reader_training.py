"""Training of the reader of glyphs, on freshly drawn pages that no contestant was trained on and no test asks for.

A font looks otherwise at every size, even when it is made smaller again: pages of several sizes are learned, in turn.
Half of them are blurred, made noisy or overlaid with a faint ghost of another one, so that what a code has kept is read
as a person would read it. Shapes: B pages, N = 64 cells, A characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipelines.glyphs import LEAST_CELL, Page, Typeface, draw_page, load_typeface, make_page
from data_pipelines.samples import to_model
from seqtok.evaluation.capacity.reader import GlyphReader, at_page_size, characters_of
from seqtok.evaluation.readers.folder import ReaderShelf
from seqtok.evaluation.readers.spoiling import spoil
from seqtok.evaluation.readers.training import SEED_SPACE, Progress, ReaderTraining, fit_reader
from seqtok_core.foundation.errors import ConfigError

_CARD = """# Reader of drawn glyphs

Says which character stands in each of the 64 cells of a drawn page, or that it is empty.
Trained by `seqtok` on freshly drawn pages; judges how many characters a code holds and nothing else.
"""


# Pixels of a cell: pages of 96, 128, 192, 224 and 256. A reader of 96 alone read 72 % of real characters at 192; one of
# these reads all of 160, 384 and 512 as well, and 92 % of 104: the ceiling beside every number says it.
LEARNED_CELLS = (LEAST_CELL, 16, 24, 28, 32)


class GlyphReaderConfig(ReaderTraining):
    """Every page is drawn for one step alone."""

    alphabet: str
    typefaces: tuple[str, ...]  # sha256 of what is drawn: readers of other fonts are other readers
    images: int = 16_000
    batch: int = 64


def reader_typefaces(alphabet: str, font: Path | None) -> tuple[Typeface, ...]:
    """Of every size that a reader learns. Raises ConfigError as `load_typeface` does."""
    return tuple(load_typeface(alphabet, font, cell) for cell in LEARNED_CELLS)


def reader_settings(typefaces: Sequence[Typeface]) -> GlyphReaderConfig:
    """The usual training for pages of these typefaces, all of one alphabet."""
    drawn = tuple(typeface.sha256 for typeface in typefaces)
    return GlyphReaderConfig(alphabet=typefaces[0].alphabet, typefaces=drawn)


def draw_pages(pages: Sequence[Page], typeface: Typeface) -> Tensor:
    """(B, 3, S, S) uint8."""
    drawn = np.stack([draw_page(page, typeface) for page in pages])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


def train_glyph_reader(
    typefaces: Sequence[Typeface], config: GlyphReaderConfig, progress: Progress | None = None
) -> GlyphReader:
    """Draw, train and return the reader in eval mode. Raises ConfigError where `config` is of other typefaces."""
    if config.typefaces != tuple(typeface.sha256 for typeface in typefaces):
        raise ConfigError("typefaces: the reader's settings name others than those that are drawn")
    letters = len(config.alphabet)

    def loss_of(reader: GlyphReader, step: int, generator: torch.Generator) -> Tensor:
        first = step * config.batch
        indices = range(first, first + config.batch)
        pages = [make_page(SEED_SPACE + config.seed, index, alphabet_size=letters) for index in indices]
        turn = 0 if step % 2 else step // 2 % len(typefaces)  # the least size, where letters are hardest, most often
        drawn = draw_pages(pages, typefaces[turn])
        pixels = spoil(at_page_size(to_model(drawn)), generator)
        return F.cross_entropy(reader(pixels).flatten(0, 1), characters_of(pages, letters).flatten())

    return fit_reader(lambda: GlyphReader(letters, config.width), loss_of, config, progress)


_SHELF = ReaderShelf(
    "seqtok glyph reader",
    _CARD,
    GlyphReaderConfig,
    lambda config: GlyphReader(len(config.alphabet), config.width),
)


def load_or_train_glyph_reader(
    folder: Path, typefaces: Sequence[Typeface], config: GlyphReaderConfig, progress: Progress | None = None
) -> GlyphReader:
    """The reader of `folder` when it was trained with `config`; otherwise it is trained and written there."""
    return _SHELF.load_or_train(folder, config, lambda: train_glyph_reader(typefaces, config, progress))
