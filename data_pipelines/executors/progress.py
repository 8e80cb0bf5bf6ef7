"""Where many tasks stand, counted once for all who run them: preparing, verifying, exporting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Progress:
    """Samples count when their shard is finished."""

    stage: Literal["names", "shards"]
    shards_done: int = 0
    shards: int = 0
    samples_done: int = 0  # in stage "names": names read
    samples: int = 0
    samples_built: int = 0  # of samples_done: in this run; the others were found finished
    shards_begun: int = 0  # handed out in this run
    workers_lost: int = 0
    bad: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)  # by reason; with the filtered ones


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Tells nobody."""


class ProgressCount:
    """Counts what becomes of tasks and tells it at every change. `begin` and `lose` are what an executor calls.

    `samples` may be too low where nobody knows them beforehand; then it grows with what was done.
    """

    def __init__(self, on_progress: OnProgress, shards: int, samples: int) -> None:
        self._on_progress = on_progress
        self._now = Progress("shards", shards=shards, samples=samples)
        on_progress(self._now)

    def begin(self, task: Any) -> None:
        """A task was handed out."""
        self._tell(shards_begun=self._now.shards_begun + 1)

    def lose(self, task: Any) -> None:
        """A task's worker died; it is done again."""
        self._tell(workers_lost=self._now.workers_lost + 1)

    def add(self, samples: int, built: int, dropped: Mapping[str, int] | None = None, bad: int = 0) -> None:
        """A shard is finished: its samples, those of them that were made in this run, those that were left out."""
        now = self._now
        done = now.samples_done + samples
        self._tell(
            shards_done=now.shards_done + 1,
            samples_done=done,
            samples=max(now.samples, done),
            samples_built=now.samples_built + built,
            dropped=Counter(now.dropped) + Counter(dropped or {}),
            bad=now.bad + bad,
        )

    def _tell(self, **changes: Any) -> None:
        self._now = replace(self._now, **changes)
        self._on_progress(self._now)
