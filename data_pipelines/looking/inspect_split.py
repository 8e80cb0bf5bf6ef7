"""One split looked at: sizes, captions level by level, labels, duplicates, what was dropped.

Counts, bytes and shards are exact; everything else is over the samples that were looked at, evenly over the split.
Memory: 16 bytes of hash per picture and caption looked at, and counters that stop growing at `_DISTINCT` values.
"""

from __future__ import annotations

import heapq
import io
import json
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.shards.manifest import Manifest
from data_pipelines.shards.shard_set import MISSING_LABEL, Record, ShardSet
from data_pipelines.tars.digests import collected, digest_of

_LONGEST = 5  # captions that are named
_COMMON = 8  # values of a label, sizes of pictures, fields of records that are named
_DISTINCT = 10_000  # values of one label that are told apart
_GROUPS = 5  # of equal pictures that are named


@dataclass(frozen=True, kw_only=True)
class Lengths:
    mean: float
    p99: int
    longest: int


@dataclass(frozen=True, kw_only=True)
class LevelOverview:
    """One caption level, 0 the coarsest."""

    captions: int
    distinct: float  # share of captions that are not equal to an earlier one of the level
    words: Lengths
    characters: Lengths
    tokens: Lengths | None  # by captions.model, where there is one


@dataclass(frozen=True, kw_only=True)
class LabelOverview:
    distinct: int
    missing: int
    common: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class PictureOverview:
    sizes: tuple[tuple[str, int], ...]  # "width x height", most common first
    other_sizes: int  # pictures of sizes that are not named
    formats: dict[str, int]
    mean_bytes: float
    largest_bytes: int
    equal: int  # pictures equal to an earlier one, byte for byte
    equal_keys: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class SplitOverview:
    split: str
    samples: int
    shards: int
    bytes: int
    shard_samples: tuple[int, int]  # of the smallest and the largest shard
    looked_at: int
    members: tuple[str, ...]  # of the first sample
    record_fields: dict[str, int]  # of KEY.json, with the number of samples that have it
    captions_per_sample: dict[int, int]
    levels: tuple[LevelOverview, ...]
    longest: tuple[tuple[str, int, int, str], ...]  # (key, level, characters, text)
    examples: tuple[str, ...]  # captions of the first sample
    labels: dict[str, LabelOverview]
    pictures: PictureOverview | None
    dropped: dict[str, int]
    notes: dict[str, int]

    @property
    def classes(self) -> dict[str, int]:
        return {label: found.distinct for label, found in self.labels.items()}


def inspect_split(
    shards: ShardSet, split: str, own: Manifest | None, words: CaptionTokenizer | None, samples: int
) -> SplitOverview:
    """`samples` 0 looks at all. Raises DataError naming a sample that cannot be read."""
    count = min(len(shards), samples) if samples else len(shards)
    indices = np.unique(np.linspace(0, len(shards) - 1, count).astype(np.int64)).tolist()
    texts, labels, pictures = _Texts(words), _Labels(shards), _Pictures()
    fields: Counter[str] = Counter()
    first: Record | None = None
    for index in indices:
        record = shards.record(index)
        first = first or record
        texts.add(record)
        labels.add(record)
        if "json" in shards.members(index):
            held = json.loads(shards.read(index, ("json",)))
            fields.update(held.keys() if isinstance(held, dict) else ())  # else captions alone
        if own is None or own.kind == "images":
            pictures.add(shards.read_image(index))
    info = own.splits[split] if own else None
    return SplitOverview(
        split=split,
        samples=len(shards),
        shards=len(shards.paths),
        bytes=sum(path.stat().st_size for path in shards.paths),
        shard_samples=(min(shards.sizes), max(shards.sizes)),
        looked_at=len(indices),
        members=shards.members(0),
        record_fields=dict(fields.most_common(_COMMON * 3)),
        captions_per_sample=dict(sorted(texts.per_sample.items())),
        levels=tuple(level.overview() for level in texts.levels),
        longest=tuple((key, level, n, text) for n, key, level, text in sorted(texts.longest, reverse=True)),
        examples=first.captions if first else (),
        labels=labels.overview(),
        pictures=pictures.overview(lambda row: shards.key(indices[row])),
        dropped=dict(info.dropped) if info else dict(Counter(bad.reason for bad in shards.dropped)),
        notes=dict(info.notes) if info else {},
    )


def _numbers() -> array[int]:
    return array("I")


@dataclass
class _Level:
    has_tokens: bool
    seen: bytearray = field(default_factory=bytearray)  # 16 bytes of hash each
    words: array[int] = field(default_factory=_numbers)
    characters: array[int] = field(default_factory=_numbers)
    tokens: array[int] = field(default_factory=_numbers)

    def overview(self) -> LevelOverview:
        return LevelOverview(
            captions=len(self.words),
            distinct=1 - collected(self.seen).equal(0)[0] / len(self.words),
            words=_lengths(self.words),
            characters=_lengths(self.characters),
            tokens=_lengths(self.tokens) if self.has_tokens else None,
        )


class _Texts:
    def __init__(self, words: CaptionTokenizer | None) -> None:
        self.levels: list[_Level] = []
        self.per_sample: Counter[int] = Counter()
        self.longest: list[tuple[int, str, int, str]] = []  # a heap
        self._words = words

    def add(self, record: Record) -> None:
        self.per_sample[len(record.captions)] += 1
        for number, text in enumerate(record.captions):
            if number == len(self.levels):
                self.levels.append(_Level(self._words is not None))
            level = self.levels[number]
            level.words.append(len(text.split()))
            level.characters.append(len(text))
            level.seen += digest_of(text.encode("utf-8", "surrogatepass"))
            if self._words is not None:
                level.tokens.append(len(self._words.encode(text)))
            item = (len(text), record.key, number, text)
            (heapq.heappush if len(self.longest) < _LONGEST else heapq.heappushpop)(self.longest, item)


class _Labels:
    def __init__(self, shards: ShardSet) -> None:
        self._classes = shards.classes
        self._counts: dict[str, Counter[str]] = {label: Counter() for label in shards.labels}
        self._missing: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        for label, value in record.labels.items():
            counts, words = self._counts[label], self._classes.get(label)
            if value == MISSING_LABEL:
                self._missing[label] += 1
                continue
            word = words[value] if words else str(value)
            if word in counts or len(counts) < _DISTINCT:
                counts[word] += 1

    def overview(self) -> dict[str, LabelOverview]:
        return {
            label: LabelOverview(
                distinct=len(counts), missing=self._missing[label], common=tuple(counts.most_common(_COMMON))
            )
            for label, counts in self._counts.items()
        }


class _Pictures:
    def __init__(self) -> None:
        self._digests = bytearray()
        self._sizes: Counter[str] = Counter()
        self._formats: Counter[str] = Counter()
        self._bytes = array("Q")

    def add(self, data: bytes) -> None:
        self._digests += digest_of(data)
        self._bytes.append(len(data))
        try:
            with Image.open(io.BytesIO(data)) as image:  # the header alone
                size, form = f"{image.width} x {image.height}", image.format or "?"
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            size, form = "unreadable", "unreadable"
        self._formats[form] += 1
        if size in self._sizes or len(self._sizes) < _DISTINCT:
            self._sizes[size] += 1

    def overview(self, keys: Callable[[int], str]) -> PictureOverview | None:
        """`keys` gives the key of the n-th picture."""
        if not self._bytes:
            return None
        equal, groups = collected(self._digests).equal(_GROUPS)
        common = self._sizes.most_common(_COMMON)
        return PictureOverview(
            sizes=tuple(common),
            other_sizes=len(self._bytes) - sum(count for _, count in common),
            formats=dict(self._formats.most_common()),
            mean_bytes=float(np.mean(self._bytes)),
            largest_bytes=max(self._bytes),
            equal=equal,
            equal_keys=tuple(tuple(keys(row) for _, row in group[:4]) for group in groups),
        )


def _lengths(values: Sequence[Any]) -> Lengths:
    return Lengths(mean=float(np.mean(values)), p99=int(np.percentile(values, 99)), longest=int(max(values)))
