"""Keys that several shards of a split share: they start again in every shard, or a shard is a copy of another one.

Keys that start again are told apart by the name of their shard; the samples of a copy are duplicates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_pipelines.tars.digests import digests_of
from data_pipelines.tars.index import PackedSamples, TarSample, read_span


@dataclass(frozen=True)
class Repeats:
    """What is known of the shards of a split, by their numbers."""

    copies: dict[int, int] = field(default_factory=dict)  # shard -> the first one that it is a copy of
    prefixes: tuple[str, ...] = ()  # of the keys of each shard; () where no key comes again

    def prefix(self, shard: int) -> str:
        """A copy has that of the first: their keys stay equal."""
        return self.prefixes[self.copies.get(shard, shard)] if self.prefixes else ""


def find_repeats(paths: Sequence[Path], shards: Sequence[PackedSamples], labels: Sequence[str]) -> Repeats:
    """`labels` tell the shards apart. Costs 8 bytes a sample for a moment; members are read only where shards are equal
    in keys and sizes."""
    digests = [digests_of(samples.names())[:, 0] for samples in shards]
    if _all_differ(digests):
        return Repeats()
    copies = _copies(paths, shards)
    own = [digest for number, digest in enumerate(digests) if number not in copies]
    return Repeats(copies, () if _all_differ(own) else tuple(f"{label}/" for label in labels))


def _all_differ(digests: Sequence[np.ndarray]) -> bool:
    return sum(map(len, digests)) == len(np.unique(np.concatenate(digests))) if digests else True


def _copies(paths: Sequence[Path], shards: Sequence[PackedSamples]) -> dict[int, int]:
    """Equal in keys and sizes, then in the first sample, then in all: little is read of shards that are not equal."""
    groups = [list(range(len(paths)))]
    tellers: tuple[Callable[[int], bytes], ...] = (
        lambda number: _names_and_sizes(shards[number]),
        lambda number: _contents(paths[number], [shards[number][0]]),
        lambda number: _contents(paths[number], shards[number]),
    )
    for told in tellers:
        groups = [part for group in groups for part in _equal(told, [n for n in group if len(shards[n])])]
    return {number: first for first, *others in groups for number in others}


def _equal(told: Callable[[int], bytes], numbers: Sequence[int]) -> list[list[int]]:
    """Groups of two and more of which the same is told."""
    found: dict[bytes, list[int]] = {}
    for number in numbers:
        found.setdefault(told(number), []).append(number)
    return [group for group in found.values() if len(group) > 1]


def _names_and_sizes(samples: Iterable[TarSample]) -> bytes:
    digest = hashlib.sha256()
    for sample in samples:
        sizes = {name: size for name, (_, size) in sample.members.items()}
        digest.update(repr((sample.key, sizes)).encode("utf-8", "surrogatepass"))
    return digest.digest()


def _contents(path: Path, samples: Iterable[TarSample]) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for sample in samples:
            for span in sample.members.values():
                digest.update(read_span(stream.fileno(), span))
    return digest.digest()
