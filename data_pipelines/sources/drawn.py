"""Drawn pictures as sources: scenes, and pages of glyphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_pipelines import glyphs, scenes
from data_pipelines.sources.base import Bad, Facts, Pair


@dataclass(frozen=True)
class ScenesSource:
    """`count` drawn scenes of one split, already at their final size."""

    split: scenes.Split
    count: int
    size: int  # pixels, square
    seed: int = 0
    kind: str = "scenes"

    def __len__(self) -> int:
        return self.count

    def names(self, start: int, stop: int) -> Iterator[str]:
        return (f"{self.split}-{index:08d}" for index in range(start, stop))

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for index in range(start, stop):
            scene = scenes.make_scene(self.seed, index, self.split)
            yield Pair(
                image=scenes.render(scene, self.size),
                captions=scene.captions,
                labels=scene.labels,
                source=f"scene {self.seed}/{self.split}/{index}",
            )

    def identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "split": self.split,
            "count": self.count,
            "size": self.size,
            "seed": self.seed,
        }

    def facts(self) -> Facts:
        names = ("count", "shapes", "colors", "details")
        made = {"fields": "the drawn scene", "order": "one text per level, each says more than the one before"}
        return Facts(level_names=names, level_labels=scenes.LEVEL_LABELS, classes=scenes.LABELS, levels_made=made)


@dataclass(frozen=True)
class GlyphsSource:
    """`count` pages of random glyphs of one split."""

    split: scenes.Split
    count: int
    typeface: glyphs.Typeface
    counts: tuple[int, ...] = glyphs.COUNTS  # characters of a page, evenly
    seed: int = 0
    kind: str = "glyphs"

    def __len__(self) -> int:
        return self.count

    def names(self, start: int, stop: int) -> Iterator[str]:
        return (f"{self.split}-{index:08d}" for index in range(start, stop))

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for index in range(start, stop):
            page = glyphs.make_page(self.seed, index, self.split, self.counts, len(self.typeface.alphabet))
            yield Pair(
                image=glyphs.draw_page(page, self.typeface),
                captions=(_how_many(len(page.cells)), " ".join(self.typeface.text(page))),
                labels={"count": self.counts.index(len(page.cells))},
                source=f"page {self.seed}/{self.split}/{index}",
            )

    def identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "split": self.split,
            "count": self.count,
            "typeface": self.typeface.sha256,
            "size": self.typeface.page_size,
            "counts": list(self.counts),
            "seed": self.seed,
        }

    def facts(self) -> Facts:
        made = {"fields": "the drawn page", "order": "how many characters, then which, in reading order"}
        classes = {"count": tuple(map(_how_many, self.counts))}
        return Facts(level_names=("count", "glyphs"), level_labels=(("count",), ()), classes=classes, levels_made=made)


def _how_many(count: int) -> str:
    return "1 glyph" if count == 1 else f"{count} glyphs"
