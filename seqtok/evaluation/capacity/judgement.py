"""Pages of growing numbers of glyphs through a code and back, and what a reader still finds on them.

Shapes: B pages, S pixels per side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from data_pipelines.glyphs import ALPHABET, COUNTS, Typeface, make_page
from seqtok.evaluation.capacity.reader import GlyphReader, characters_of
from seqtok.evaluation.capacity.reader_training import draw_pages
from seqtok.evaluation.capacity.scoring import capacity_row
from seqtok.evaluation.stopwatch import Stopwatch
from seqtok_core.foundation.config import Config

Rebuild = Callable[[Tensor], Tensor]  # (B, 3, S, S) uint8 -> what a code makes of it, the same


class CapacityConfig(Config):
    """Which pages are read."""

    glyphs: tuple[int, ...] = COUNTS  # characters of a page
    pictures: Annotated[int, Field(ge=2)] = 500  # pages of each number of characters
    alphabet: str = ALPHABET
    font: Path | None = None  # None: the one that Pillow brings
    seed: Annotated[int, Field(ge=0)] = 0  # of the pages


def capacity(
    ways: Mapping[str, Rebuild], reader: GlyphReader, typeface: Typeface, config: CapacityConfig
) -> dict[str, Any]:
    """-> `ways`: name of a way through the code -> n -> `capacity_row` of held-out pages of n glyphs each; and the
    seconds of each stage. All ways get the same pages."""
    watch, letters = Stopwatch(), len(typeface.alphabet)
    found: dict[str, dict[str, Any]] = {name: {} for name in ways}
    for count in config.glyphs:
        drawn = [make_page(config.seed, index, "test", (count,), letters) for index in range(config.pictures)]
        pictures, truth = draw_pages(drawn, typeface), characters_of(drawn, letters)
        real = reader.characters(pictures)
        for name, rebuild in ways.items():
            with watch.stage(f"{count} glyphs, {name}", config.pictures):
                read = reader.characters(rebuild(pictures))
            found[name][str(count)] = capacity_row(read, real, truth, letters)
    return {"ways": found, "stages": watch.stages}
