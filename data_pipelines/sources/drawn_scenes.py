"""Drawn scenes as a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_pipelines import scenes
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
