"""Where image-text pairs come from: one small interface, and the drawn scenes behind it.

A source has a fixed length, and `pairs(start, stop)` is a pure function: a shard is a task of its own.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipelines import scenes
from seqtok_core.foundation.errors import ConfigError

_RUN = 4096  # indices looked at together


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One picture with its captions, as the source has it."""

    image: bytes | NDArray[np.uint8]  # an image file, or (H, W, 3) pixels
    captions: tuple[str, ...]  # coarse to fine, not yet normalised
    labels: Mapping[str, int | str] = field(default_factory=dict)
    source: str  # where it came from; named in messages and kept in the shard


@dataclass(frozen=True)
class Bad:
    """A sample that cannot be used: counted by `reason`, named by `source`."""

    source: str
    reason: str
    detail: str = ""
    filtered: bool = False  # left out as asked (its reason begins with "filtered"): in no limit of bad samples


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a source knows about its data beforehand; empty where it does not."""

    level_names: tuple[str, ...] = ()
    level_labels: tuple[tuple[str, ...], ...] = ()  # per level: the labels that speak of the same thing
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # label -> words of its classes
    levels_made: Mapping[str, Any] = field(default_factory=dict)  # how captions became levels; for dataset.json


class Source(Protocol):
    """Must be picklable: worker processes get a copy."""

    @property
    def kind(self) -> str: ...

    def __len__(self) -> int: ...

    def names(self, start: int, stop: int) -> Iterator[str]:
        """What the samples [start, stop) are called in the source; samples of equal names are duplicates."""

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        """Exactly one item per index in [start, stop), in order."""

    def identity(self) -> dict[str, Any]:
        """JSON that tells this source from another one; independent of where it is mounted."""

    def facts(self) -> Facts: ...


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


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of another source, by their indices."""

    whole: Source
    indices: NDArray[np.int64]
    share: str  # says which part this is
    left_out: Mapping[str, int] = field(default_factory=dict)  # by reason; counted, not named

    @property
    def kind(self) -> str:
        return self.whole.kind

    def __len__(self) -> int:
        return len(self.indices)

    def names(self, start: int, stop: int) -> Iterator[str]:
        for first, end in self._runs(start, stop):
            yield from self.whole.names(first, end)

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for first, end in self._runs(start, stop):
            yield from self.whole.pairs(first, end)

    def identity(self) -> dict[str, Any]:
        """The parts of a part are told in the order in which they were made."""
        whole = self.whole.identity()
        parts = [*whole.pop("parts", []), {"share": self.share, "samples": len(self)}]
        if self.left_out:
            parts[-1]["left_out"] = dict(self.left_out)
        return {**whole, "parts": parts}

    def facts(self) -> Facts:
        return self.whole.facts()

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Neighbours are read together."""
        for first in range(start, min(stop, len(self)), _RUN):
            indices = self.indices[first : min(first + _RUN, stop)]
            cuts = np.flatnonzero(np.diff(indices) != 1) + 1
            for run in np.split(indices, cuts):
                yield int(run[0]), int(run[-1]) + 1


def split_by_name(source: Source, shares: Mapping[str, float], rest: str = "train") -> dict[str, Source]:
    """Cut a source into splits by a hash of each sample's name, so that adding samples moves none.

    `shares` e.g. {"val": 0.1}; what is left is called `rest`.
    """
    if rest in shares or not all(0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ConfigError(f"split shares {dict(shares)}: each in (0, 1), together below 1, none named {rest!r}")
    chosen = {split: array("q") for split in (rest, *shares)}
    for index, name in enumerate(source.names(0, len(source))):
        chosen[_draw(name, shares, rest)].append(index)
    text = ", ".join(f"{split} {share:g}" for split, share in shares.items())
    parts = {split: np.array(found, dtype=np.int64) for split, found in chosen.items()}
    return {split: Part(source, found, f"{split} of {text}") for split, found in parts.items()}


def _draw(name: str, shares: Mapping[str, float], rest: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    value = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in shares.items():
        if value < share:
            return split
        value -= share
    return rest
