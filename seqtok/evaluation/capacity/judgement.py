"""Pages of growing numbers of glyphs through a code and back, and what a reader still finds on them.

Shapes: B pages, S pixels per side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field
from torch import Tensor

from data_pipelines.glyphs import ALPHABET, COUNTS, Typeface, make_page
from seqtok.evaluation.capacity.reader import characters_of
from seqtok.evaluation.capacity.reader_training import draw_pages
from seqtok.evaluation.capacity.scoring import capacity_row
from seqtok.evaluation.stopwatch import Stopwatch
from seqtok_core.foundation.config import Config

Rebuild = Callable[[Tensor], Tensor]  # (B, 3, S, S) uint8 -> what a code makes of it, the same


class Reads(Protocol):
    """A reader of pages."""

    def characters(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> (B, N) int64, the character of each cell; A where it is empty."""
        ...


class CapacityConfig(Config):
    """Which pages are read."""

    glyphs: tuple[int, ...] = COUNTS  # characters of a page
    pictures: Annotated[int, Field(ge=2)] = 500  # pages of each number of characters
    alphabet: str = ALPHABET
    font: Path | None = None  # None: the one that Pillow brings
    seed: Annotated[int, Field(ge=0)] = 0  # of the pages
    published: Annotated[int, Field(ge=0)] = 0  # pages of each number that a published reader reads, too: slowly


def capacity(
    ways: Mapping[str, Rebuild],
    reader: Reads,
    typeface: Typeface,
    config: CapacityConfig,
    published: Reads | None = None,
) -> dict[str, Any]:
    """-> `ways`: name of a way through the code -> n -> `capacity_row` of held-out pages of n glyphs each; the same by
    a published reader, of the first pages; and the seconds of each stage. All ways get the same pages."""
    watch, letters = Stopwatch(), len(typeface.alphabet)
    found: dict[str, dict[str, Any]] = {name: {} for name in ways}
    second: dict[str, dict[str, Any]] = {name: {} for name in ways if published is not None}
    for count in config.glyphs:
        drawn = [make_page(config.seed, index, "test", (count,), letters) for index in range(config.pictures)]
        pictures, truth = draw_pages(drawn, typeface), characters_of(drawn, letters)
        first = slice(0, config.published)
        real = reader.characters(pictures)
        known = None if published is None else published.characters(pictures[first])
        for name, rebuild in ways.items():
            with watch.stage(f"{count} glyphs, {name}", config.pictures):
                rebuilt = rebuild(pictures)
                found[name][str(count)] = capacity_row(reader.characters(rebuilt), real, truth, letters)
            if published is not None and known is not None:
                with watch.stage(f"{count} glyphs, {name}, published reader", len(known)):
                    read = published.characters(rebuilt[first])
                second[name][str(count)] = capacity_row(read, known, truth[first], letters)
    return {"ways": found, "published": second, "stages": watch.stages}
