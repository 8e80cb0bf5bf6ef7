"""Finished shards, summed up one by one into the manifest: only what `dataset.json` says is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_pipelines.prepare.tasks import ShardDone, ShardTasks
from data_pipelines.shards.manifest import NAMED_DROPS, Dropped, Manifest, ShardInfo, SplitInfo
from data_pipelines.sources.base import Facts

if TYPE_CHECKING:
    from data_pipelines.prepare.settings import PrepareConfig


@dataclass
class Tally:
    """Sums that do not depend on the order in which the shards are finished."""

    tasks: ShardTasks
    splits: dict[str, _Split] = field(init=False)
    words: dict[str, set[str]] = field(default_factory=dict)
    levels: int = 0
    bad: int = 0  # dropped, but not as asked

    def __post_init__(self) -> None:
        self.splits = {split: _Split([None] * count) for split, count in self.tasks.shards.items()}

    def add(self, done: ShardDone) -> None:
        self.bad += done.bad
        self.levels = max(self.levels, done.levels)
        for label, words in done.labels.items():
            self.words.setdefault(label, set()).update(words)
        self.splits[done.task.split].add(done)

    @property
    def dropped(self) -> Counter[str]:
        """Samples by reason, filtered ones among them."""
        return sum((split.dropped for split in self.splits.values()), Counter())

    @property
    def first_bad(self) -> Dropped | None:
        return next((named for split in self.splits.values() for _, named in split.named), None)

    def manifest(self, config: PrepareConfig, facts: Facts, plan: Mapping[str, Any]) -> Manifest:
        """When all shards are finished."""
        return Manifest(
            kind="images",
            name=config.name,
            image_size=config.size,
            levels=self.levels,
            level_names=facts.level_names,
            level_labels=facts.level_labels,
            levels_made=facts.levels_made,
            labels=tuple(sorted(self.words)),
            classes=_classes(self.words, facts),
            splits={split: found.info() for split, found in self.splits.items()},
            source=plan,
        )


@dataclass
class _Split:
    shards: list[ShardInfo | None]  # by number
    dropped: Counter[str] = field(default_factory=Counter)
    named: list[tuple[tuple[int, int], Dropped]] = field(default_factory=list)  # ((shard, place), sample)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, done: ShardDone) -> None:
        self.shards[done.task.number] = done.shard
        self.dropped.update(done.dropped)
        self.notes.update(done.notes)
        self.named += [((done.task.number, place), item) for place, item in enumerate(done.named)]
        self.named = sorted(self.named, key=lambda item: item[0])[:NAMED_DROPS]

    def info(self) -> SplitInfo:
        shards = tuple(shard for shard in self.shards if shard is not None)
        assert len(shards) == len(self.shards), "a shard is missing"
        return SplitInfo(
            samples=sum(shard.samples for shard in shards),
            shards=shards,
            dropped=dict(sorted(self.dropped.items())),
            dropped_samples=tuple(item for _, item in self.named),
            notes=dict(sorted(self.notes.items())),
        )


def _classes(seen: Mapping[str, set[str]], facts: Facts) -> dict[str, tuple[str, ...]]:
    """Words in the source's own order where it has one, else sorted; labels that are numbers have none."""
    found = {label: tuple(sorted(words)) for label, words in seen.items() if words}
    return {**found, **{label: words for label, words in facts.classes.items() if label in seen}}
