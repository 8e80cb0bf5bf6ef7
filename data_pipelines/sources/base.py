"""Where image-text pairs come from: one small interface, and the drawn scenes behind it.

A source has a fixed length, and `pairs(start, stop)` is a pure function: a shard is a task of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from seqtok_core.foundation.errors import cut_text, shown

OnBadSample = Literal["error", "skip"]
MAX_BAD_SHARE = 0.02  # of the samples, wherever they are read; more bad ones are an error
Described = tuple[tuple[str, ...], dict[str, int | str]]  # captions, labels
_KEPT = 200  # characters of each text of a bad sample


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One picture with its captions, as the source has it."""

    image: bytes | NDArray[np.uint8]  # an image file, or (H, W, 3) pixels
    captions: tuple[str, ...]  # coarse to fine, not yet normalised
    labels: Mapping[str, int | str] = field(default_factory=dict)
    source: str  # where it came from; named in messages and kept in the shard


@dataclass(frozen=True)
class Bad:
    """A sample that cannot be used: counted by `reason`, named by `source`. Of a long text both ends are kept: a
    cell that is no path may hold megabytes. As a text it is what messages show."""

    source: str
    reason: str
    detail: str = ""
    filtered: bool = False  # left out as asked (its reason begins with "filtered"): in no limit of bad samples

    def __post_init__(self) -> None:
        for name in ("source", "reason", "detail"):
            object.__setattr__(self, name, cut_text(getattr(self, name), _KEPT))

    def __str__(self) -> str:
        return f"{shown(self.source)} ({self.why})"

    @property
    def why(self) -> str:
        """Reason and detail, where the detail does not begin with the reason anyway."""
        if self.detail.startswith(self.reason):
            return shown(self.detail)
        return f"{shown(self.reason)}: {shown(self.detail)}" if self.detail else shown(self.reason)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a source knows about its data beforehand; empty where it does not."""

    level_names: tuple[str, ...] = ()
    level_labels: tuple[tuple[str, ...], ...] = ()  # per level: the labels that speak of the same thing
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # label -> words of its classes
    block: int = 1  # neighbours that are read together at little more than the cost of one
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
