"""One shard is one task: a pure function of (source, settings, number), the same wherever it is done."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from data_pipelines.prepare.build import build_samples
from data_pipelines.prepare.keys import PLAIN, Marks, key_of, mark_names
from data_pipelines.shards.files import commit_shard, find_committed, shard_name
from data_pipelines.shards.manifest import NAMED_DROPS, Dropped, ShardInfo
from data_pipelines.shards.output import LOCK
from data_pipelines.sources.base import Source
from data_pipelines.sources.derived.shuffled import Shuffled
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.errors import DataError, StorageError

if TYPE_CHECKING:
    from data_pipelines.prepare.settings import PrepareConfig


@dataclass(frozen=True)
class ShardTask:
    """Samples [start, stop) of a split, as shard `number`."""

    split: str
    number: int
    start: int
    stop: int
    marks: bytes = b""  # one of keys.PLAIN ... per sample; empty when all are plain

    def __str__(self) -> str:
        return f"shard {self.number} of split {self.split} (samples {self.start} to {self.stop - 1})"


class ShardTasks(Sequence[ShardTask]):
    """All tasks in order of split and number, made when they are asked for: a million of them cost nothing."""

    def __init__(self, lengths: Mapping[str, int], marks: Mapping[str, Marks | None], per_shard: int) -> None:
        self._lengths, self._marks, self._per_shard = dict(sorted(lengths.items())), marks, per_shard
        self.samples = sum(lengths.values())
        self.shards = {split: -(-length // per_shard) for split, length in self._lengths.items()}

    def __len__(self) -> int:
        return sum(self.shards.values())

    @overload
    def __getitem__(self, index: int) -> ShardTask: ...
    @overload
    def __getitem__(self, index: slice) -> list[ShardTask]: ...
    def __getitem__(self, index: int | slice) -> ShardTask | list[ShardTask]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        for split, count in self.shards.items():
            if number < count:
                return self._task(split, number)
            number -= count
        raise AssertionError("range() has checked the index")

    def _task(self, split: str, number: int) -> ShardTask:
        start = number * self._per_shard
        stop = min(start + self._per_shard, self._lengths[split])
        marks = self._marks[split]
        own = b"" if marks is None else marks[start:stop].tobytes()
        return ShardTask(split, number, start, stop, own if any(own) else b"")


@dataclass(frozen=True)
class PrepareWork:
    """What all tasks share."""

    sources: Mapping[str, Source]
    config: PrepareConfig
    out: Path
    plan: str  # fingerprint
    owner: str  # what the folder's lock says of the run that all tasks belong to


@dataclass(frozen=True)
class ShardDone:
    """What the manifest needs to know of a finished shard."""

    task: ShardTask
    shard: ShardInfo
    built: bool  # in this run; else it was found committed
    dropped: Mapping[str, int]  # reason -> samples
    bad: int  # of the dropped ones; the others were left out as asked
    named: tuple[Dropped, ...]  # the first of the bad ones
    notes: Mapping[str, int]
    levels: int
    labels: Mapping[str, Sequence[str]]  # label -> words


def make_tasks(
    sources: Mapping[str, Source], config: PrepareConfig, on_progress: Callable[[int], None] = lambda read: None
) -> ShardTasks:
    """The same for every executor. Reads the names of all samples once; `on_progress`: how many are read."""
    for split, source in sorted(sources.items()):
        if not len(source):
            raise DataError(f"split {split}: the source holds no samples")
    lengths = {split: len(source) for split, source in sources.items()}
    marks = mark_names({split: _as_stored(source) for split, source in sources.items()}, on_progress)
    for split, source in sources.items():
        found = marks[split]
        if isinstance(source, Shuffled) and found is not None:
            marks[split] = found[source.indices(0, len(source))]
    return ShardTasks(lengths, marks, config.samples_per_shard)


def _as_stored(source: Source) -> Source:
    """Names are read forward, and of two equal ones the first of the source counts."""
    return source.whole if isinstance(source, Shuffled) else source


def do_task(work: PrepareWork, task: ShardTask) -> ShardDone:
    """Find the shard committed, or build it and commit it."""
    file = shard_name(work.config.name, task.split, task.number)
    identity = fingerprint.of_value([work.plan, task.split, task.number])
    _check_owner(work)
    found = find_committed(work.out, file, identity)
    if found:
        return _done(task, *found, built=False)
    source = work.sources[task.split]
    marks = task.marks or bytes([PLAIN]) * (task.stop - task.start)
    names = source.names(task.start, task.stop)
    keys = [key_of(name, mark, task.split) for name, mark in zip(names, marks, strict=True)]
    samples, facts = build_samples(source.pairs(task.start, task.stop), keys, work.config)
    try:
        shard = commit_shard(
            work.out, file, samples, task=identity, facts=facts, before_rename=lambda: _check_owner(work)
        )
    except DataError as error:
        raise DataError(f"{task}: {error}") from None
    return _done(task, shard, facts, built=True)


def _done(task: ShardTask, shard: ShardInfo, facts: Mapping[str, Any], *, built: bool) -> ShardDone:
    bad = [item for item in facts["dropped"] if not item.get("filtered")]
    return ShardDone(
        task=task,
        shard=shard,
        built=built,
        dropped=Counter(item["reason"] for item in facts["dropped"]),
        bad=len(bad),
        named=tuple(Dropped(**item) for item in bad[:NAMED_DROPS]),
        notes=facts["notes"],
        levels=facts["levels"],
        labels=facts["labels"],
    )


def _check_owner(work: PrepareWork) -> None:
    """A worker on a node that does not share the folder, or whose run is over, must not write into it."""
    try:
        owner = (work.out / LOCK).read_text(encoding="utf-8")
    except OSError:
        owner = "nobody"
    if owner and owner != work.owner:
        raise StorageError(
            f"{work.out}: on {socket.gethostname()} this is not the folder of the run; all nodes of a cluster must "
            "see the same folder under this path, and a run must have it alone"
        )
