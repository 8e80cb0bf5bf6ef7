"""Sample keys that are safe as file names: [A-Za-z0-9_-], at most 128, one per sample of a data set.

A key is the sample's name with every other character as "_". A hash at its end tells apart what would be equal:
1. names of one split whose safe forms are equal get a hash of the name,
2. names of two splits whose safe forms are equal get a hash of split and name,
3. the second and later samples of one name within a split get no key: they are duplicates.
No key depends on the order of the samples. Names are read as a stream and never kept: 16 bytes per sample are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipelines.tars.names import SAFE_KEY

PLAIN, HASHED, HASHED_WITH_SPLIT, DUPLICATE = range(4)  # marks: how a sample's key is made
_LONGEST = 128
_HASH = 12  # hex digits that tell two names apart when their safe forms are equal
_CHUNK = 1 << 12  # names read at once

Marks = NDArray[np.uint8]  # (N,), one of the four per sample


class Named(Protocol):
    def __len__(self) -> int: ...

    def names(self, start: int, stop: int) -> Iterator[str]: ...


def safe_key(name: str) -> str:
    """Every other character becomes "_"; a name that is too long or empty ends in a hash of itself."""
    key = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return key if SAFE_KEY.fullmatch(key) else _with_hash(key, name)


def key_of(name: str, mark: int, split: str) -> str | None:
    """The key of a sample with this mark; None for a duplicate."""
    if mark == DUPLICATE:
        return None
    key = safe_key(name)
    if mark == PLAIN:
        return key
    return _with_hash(key, name if mark == HASHED else f"{split}/{name}")


def mark_names(
    splits: Mapping[str, Named], on_progress: Callable[[int], None] = lambda read: None
) -> dict[str, Marks | None]:
    """Marks of every sample by split; None where all keys of a split are plain. `on_progress`: names read."""
    order = sorted(splits)
    bounds = np.cumsum([0, *(len(splits[split]) for split in order)])
    hashes = np.empty((int(bounds[-1]), 2), np.uint64)  # of the safe key, of the name
    for split, first in zip(order, bounds, strict=False):
        _hash_names(splits[split], hashes, int(first), on_progress)
    marks = np.full(len(hashes), PLAIN, np.uint8)
    shared = _shared(hashes[:, 0])
    if len(shared):
        marks[shared] = _mark(hashes[shared], np.searchsorted(bounds, shared, side="right"))
        _drop_late_clashes(splits, order, bounds, hashes[:, 0], marks)
    parts = {split: marks[a:b] for split, a, b in zip(order, bounds, bounds[1:], strict=False)}
    return {split: part if part.any() else None for split, part in parts.items()}


def _hash_names(source: Named, out: NDArray[np.uint64], first: int, on_progress: Callable[[int], None]) -> None:
    """Fills out[first : first + len(source)]."""
    for start in range(0, len(source), _CHUNK):
        stop = min(start + _CHUNK, len(source))
        blob = b"".join(_digest(safe_key(name)) + _digest(name) for name in source.names(start, stop))
        out[first + start : first + stop] = np.frombuffer(blob, np.uint64).reshape(stop - start, 2)
        on_progress(first + stop)


def _shared(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions, ascending, of the values that come more than once."""
    order = np.argsort(values)
    equal = np.zeros(len(order) + 1, np.bool_)  # equal[i]: element i has the value of the one before
    equal[1:-1] = values[order[1:]] == values[order[:-1]]
    return np.sort(order[equal[1:] | equal[:-1]])


def _mark(hashes: NDArray[np.uint64], split: NDArray[np.int64]) -> Marks:
    """Marks of samples, in their order, none of whose keys is used only once."""
    order = np.lexsort((hashes[:, 1], split, hashes[:, 0]))  # by key, split, name; stable
    key, name, part = hashes[order, 0], hashes[order, 1], split[order]
    new_key = np.insert(key[1:] != key[:-1], 0, True)
    new_split = new_key | np.insert(part[1:] != part[:-1], 0, True)
    new_name = new_split | np.insert(name[1:] != name[:-1], 0, True)
    splits_of_key = _count_by(new_key, new_split)
    names_of_split = _count_by(new_split, new_name)
    marks = np.empty(len(order), np.uint8)
    marks[order] = np.select(
        [~new_name, splits_of_key > 1, names_of_split > 1], [DUPLICATE, HASHED_WITH_SPLIT, HASHED], PLAIN
    )
    return marks


def _count_by(starts: NDArray[np.bool_], counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each element: how many of `counted` lie in its group; groups begin where `starts`."""
    group = np.cumsum(starts) - 1
    return np.bincount(group, weights=counted).astype(np.int64)[group]


def _drop_late_clashes(
    splits: Mapping[str, Named], order: list[str], bounds: NDArray, keys: NDArray[np.uint64], marks: Marks
) -> None:
    """A name may be made up so that its hashed key is another sample's key: the later of the two has none."""
    for split, first in zip(order, bounds, strict=False):
        for start in range(0, len(splits[split]), _CHUNK):
            stop = min(start + _CHUNK, len(splits[split]))
            chosen = marks[first + start : first + stop]
            if not ((chosen == HASHED) | (chosen == HASHED_WITH_SPLIT)).any():
                continue
            for place, name in enumerate(splits[split].names(start, stop), start=first + start):
                key = key_of(name, int(marks[place]), split)
                keys[place] = np.frombuffer(_digest(key), np.uint64)[0] if key else keys[place]
    owned = np.flatnonzero(marks != DUPLICATE)
    values, first_use = np.unique(keys[owned], return_index=True)
    if len(values) < len(owned):
        marks[np.delete(owned, first_use)] = DUPLICATE


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _with_hash(key: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    return f"{key[: _LONGEST - _HASH - 1]}-{digest}"
