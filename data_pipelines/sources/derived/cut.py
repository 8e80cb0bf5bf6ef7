"""Some samples of a source: by split, by a share of their names, or by conditions on their records, as
`label=dog`, `vendor=noto,fluent`, `license!=unknown`, `width>=256`.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad, Facts, Pair, Source
from data_pipelines.sources.values import value_at
from data_pipelines.tars.folders import split_of_folder
from seqtok_core.foundation.errors import ConfigError, DataError

_RUN = 4096  # indices looked at together
_FORM = re.compile(r"([^=!<>]+?)\s*(!=|>=|<=|=|<|>)\s*(.*)")


@dataclass(frozen=True, eq=False)
class Subset:
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
        for first, end in runs_of(self.indices[start:stop]):
            yield from self.whole.names(first, end)

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for first, end in runs_of(self.indices[start:stop]):
            yield from self.whole.pairs(first, end)

    def records(self, start: int, stop: int) -> Iterator[Mapping[str, Any] | Bad]:
        """Of a source that has them."""
        whole: Any = self.whole
        for first, end in runs_of(self.indices[start:stop]):
            yield from whole.records(first, end)

    def identity(self) -> dict[str, Any]:
        """The parts of a part are told in the order in which they were made."""
        whole = self.whole.identity()
        parts = [*whole.pop("parts", []), {"share": self.share, "samples": len(self)}]
        if self.left_out:
            parts[-1]["left_out"] = dict(self.left_out)
        return {**whole, "parts": parts}

    def facts(self) -> Facts:
        facts = self.whole.facts()
        return replace(facts, block=max(1, facts.block * len(self) // max(1, len(self.whole))))


def runs_of(indices: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(first, end) of neighbours that stand together: they are read together."""
    for first in range(0, len(indices), _RUN):
        part = indices[first : first + _RUN]
        cuts = np.flatnonzero(np.diff(part) != 1) + 1
        for run in np.split(part, cuts):
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
    return {split: Subset(source, found, f"{split} of {text}") for split, found in parts.items()}


def split_by_folder(source: Source) -> dict[str, Source]:
    """By the first folder of each sample's name; {} unless all of these are called as splits are."""
    chosen: dict[str, array[int]] = {}
    for index, name in enumerate(source.names(0, len(source))):
        folder, slash, _ = name.partition("/")
        split = split_of_folder(folder) if slash else ""
        if not split:
            return {}
        chosen.setdefault(split, array("q")).append(index)
    return {split: Subset(source, np.array(found, np.int64), f"folder {split}") for split, found in chosen.items()}


def _draw(name: str, shares: Mapping[str, float], rest: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    value = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in shares.items():
        if value < share:
            return split
        value -= share
    return rest


class Recorded(Source, Protocol):
    """A source whose records can be read without their pictures."""

    def records(self, start: int, stop: int) -> Iterator[Mapping[str, Any] | Bad]: ...


@dataclass(frozen=True)
class Condition:
    """One comparison. = and != take words divided by commas; a list of words fits if any of them does."""

    text: str
    field: str
    relation: str
    values: tuple[str, ...]

    def holds(self, record: Mapping[str, Any]) -> bool:
        """False where the record lacks the field, or what it holds is not a number but must be one."""
        value = value_at(record, self.field)
        if value is None:
            return False
        if self.relation in ("=", "!="):
            found = {_word(item) for item in (value if isinstance(value, list) else [value])}
            return (not found.isdisjoint(self.values)) == (self.relation == "=")
        try:
            number, limit = float(value), float(self.values[0])
        except (TypeError, ValueError):
            return False
        return {">=": number >= limit, "<=": number <= limit, ">": number > limit, "<": number < limit}[self.relation]


def parse_condition(text: str) -> Condition:
    match = _FORM.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"`where` {text!r}: not a condition such as label=dog, vendor=noto,fluent or width>=256")
    field, relation, rest = match.groups()
    values = tuple(word.strip() for word in rest.split(",")) if relation in ("=", "!=") else (rest.strip(),)
    if relation not in ("=", "!="):
        try:
            float(values[0])
        except ValueError:
            raise ConfigError(f"`where` {text!r}: {rest!r} is not a number") from None
    return Condition(text.strip(), field.strip(), relation, values)


def keep_where(source: Recorded, conditions: Sequence[Condition]) -> Subset | None:
    """Samples for which every condition holds; None when there are none. What is left out is counted by the first
    condition that fails. Records that cannot be read stay: they are named as bad when they are prepared."""
    kept = array("q")
    left_out: Counter[str] = Counter()
    for index, record in enumerate(source.records(0, len(source))):
        failed = None if isinstance(record, Bad) else next((c for c in conditions if not c.holds(record)), None)
        if failed is None:
            kept.append(index)
        else:
            left_out[failed.text] += 1
    if not kept:
        return None
    share = "where " + " and ".join(condition.text for condition in conditions)
    return Subset(source, np.array(kept, dtype=np.int64), share, dict(left_out))


def keep_in_all(sources: Mapping[str, Recorded], conditions: Sequence[Condition]) -> dict[str, Source]:
    """As `keep_where` for each split; one that nothing is left of goes. Raises DataError when all do."""
    parts = {split: keep_where(source, conditions) for split, source in sources.items()}
    found: dict[str, Source] = {split: part for split, part in parts.items() if part is not None}
    if not found:
        text = " and ".join(condition.text for condition in conditions)
        first = next(iter(sources.values()))
        shown = sorted({_shown(record, conditions) for record in first.records(0, min(len(first), 1000))})[:10]
        raise DataError(f"no sample fits `where` {text}; the first ones have {'; '.join(shown)}")
    return found


def _shown(record: Mapping[str, Any] | Bad, conditions: Sequence[Condition]) -> str:
    if isinstance(record, Bad):
        return record.reason
    found = {c.field: value_at(record, c.field) for c in conditions}
    return ", ".join(f"no {name}" if value is None else f"{name}={_word(value)[:40]}" for name, value in found.items())


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
