"""A source in another order, a function of seed and place alone; and whether an order is one of sorted classes.

Sorted classes make shards of few classes each, and whoever mixes some shards sees few classes in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad, Facts, Pair, Source
from data_pipelines.sources.derived.cut import Subset
from seqtok_core.foundation.random_bits import PREPARED, permuted

_LEAST = 16  # samples; fewer have no order to speak of
_PLACES = 32  # where an order is looked at
_REACH = 8  # samples between two that are compared
_SORTED = 0.5  # share of equal neighbours, beyond that of equal strangers
CAPTION = "caption"  # what samples are compared by besides their labels


@dataclass(frozen=True, eq=False)
class Shuffled:
    """All samples of `whole`; `block` neighbours stay together, in their order, and so does a last block that is not
    full, at the end."""

    whole: Source
    block: int = 1
    seed: int = 0

    @property
    def kind(self) -> str:
        return self.whole.kind

    def __len__(self) -> int:
        return len(self.whole)

    def indices(self, start: int, stop: int) -> NDArray[np.int64]:
        """(stop - start,) what stands at these places, by its number in `whole`."""
        places = np.arange(start, stop, dtype=np.int64)
        blocks = len(self) // self.block
        inside = places < blocks * self.block
        number, within = np.divmod(places[inside], self.block)
        places[inside] = permuted(number, blocks, self.seed, PREPARED) * self.block + within
        return places

    def names(self, start: int, stop: int) -> Iterator[str]:
        return Subset(self.whole, self.indices(start, stop), "").names(0, stop - start)

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        return Subset(self.whole, self.indices(start, stop), "").pairs(0, stop - start)

    def identity(self) -> dict[str, Any]:
        whole = self.whole.identity()
        shuffled = {"shuffled": {"seed": self.seed, "block": self.block}}
        return {**whole, "parts": [*whole.get("parts", []), shuffled]}

    def facts(self) -> Facts:
        return self.whole.facts()


def sorted_label(source: Source) -> str | None:
    """The label, or CAPTION, that the samples come sorted by; None where they are mixed. Reads some of them."""

    def look(index: int) -> Mapping[str, Any]:
        pair = next(iter(source.pairs(index, index + 1)))
        return {} if isinstance(pair, Bad) else {**pair.labels, CAPTION: pair.captions[:1]}

    return sorted_by(len(source), look)


def sorted_by(count: int, look: Callable[[int], Mapping[str, Any]]) -> str | None:
    """The name of a value that comes in long runs: samples some places apart are alike, those half the data apart are
    not. `look(index)` gives the values of a sample by name."""
    if count < _LEAST:
        return None
    reach = min(_REACH, max(1, count // _PLACES))
    places = np.unique(np.linspace(0, count - 2 - reach, min(_PLACES, count - 1 - reach), dtype=np.int64)).tolist()
    here = [look(place) for place in places]
    near = [[look(place + steps) for place in places] for steps in (reach, reach + 1)]  # two: classes may take turns
    far = here[len(here) // 2 :] + here[: len(here) // 2]
    for name in dict.fromkeys(name for values in here for name in values):
        if min(_alike(here, those, name) for those in near) - _alike(here, far, name) >= _SORTED:
            return name
    return None


def _alike(some: list[Mapping[str, Any]], others: list[Mapping[str, Any]], name: str) -> float:
    equal = [a[name] == b[name] for a, b in zip(some, others, strict=True) if name in a and name in b]
    return sum(equal) / len(equal) if equal else 0.0
