"""Progress on rank 0: a bar with images/s and the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from seqtok_core.training.checkpoints.checkpoint import step_of
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.processes.distributed import World

_PLAIN_EVERY_S = 15.0  # seconds between two plain lines
_FIRST = 2  # steps before the first plain line: a step's time is known, the first step's warming up is in it


def say_start(folder: Path, source: Path | None, config: TrainConfig, world: World, parameters: int, data: str) -> None:
    """Two lines, before anything slow: what a log that ends early still tells. Rank 0 only; the time left is said after
    the second step."""
    if not world.is_first:
        return
    done = 0 if source is None else step_of(source)
    place = f"of {config.steps:,} ({done * config.batch:,} of {config.steps * config.batch:,} images)"
    own = source is not None and source.resolve().parent.parent == folder.resolve()
    if source is None:
        begin = f"new run of {config.steps:,} steps ({config.steps * config.batch:,} images)"
    elif done >= config.steps:
        begin = f"all steps are done, the last {place}"
    else:
        begin = f"continues from step {done:,} {place}" + ("" if own else f", begun elsewhere: {source}")
    where = world.device.type + (f" x {world.size}" if world.size > 1 else "")
    how = f"{parameters / 1e6:.2f} M parameters, batch {config.batch}, {config.precision} on {where}"
    _print(f"{folder}: {begin}")
    _print(f"{folder}: {how}" + (f", {data}" if data else ""))


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class ProgressBar:
    """A context manager; silent on every process but the first."""

    def __init__(self, world: World, title: str, total: int, done: int) -> None:
        self._active = world.is_first
        self._title, self._total, self._start = title, total, done
        self._began = self._spoke = time.monotonic()
        self._updates, self._loss = 0, ""
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._active and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]} images/s"),
                TimeRemainingColumn(),
                TextColumn("loss {task.fields[loss]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._start, rate="-", loss="-")
            self._bar.start()
        return self

    def update(self, images: int, loss: float | None = None) -> None:
        """`loss` is known at logged steps only; the last one stays on show."""
        if not self._active:
            return
        now, self._updates = time.monotonic(), self._updates + 1
        rate = (images - self._start) / max(now - self._began, 1e-9)
        self._loss = self._loss if loss is None else f", loss {loss:.4f}"
        due = self._updates == _FIRST or now - self._spoke >= _PLAIN_EVERY_S or images >= self._total
        if self._bar is not None:
            shown = {} if loss is None else {"loss": f"{loss:.4f}"}
            self._bar.update(self._task, completed=images, rate=f"{rate:.0f}", **shown)
        elif due:
            self._spoke = now
            left = (self._total - images) / max(rate, 1e-9)
            _print(
                f"{self._title}: {images}/{self._total} images, {rate:.0f} images/s, "
                f"{int(left) // 60}:{int(left) % 60:02d} left{self._loss}"
            )

    def say(self, message: str | None) -> None:
        """A line beside the bar, from the first process."""
        if message is None or not self._active:
            return
        if self._bar is not None:
            self._bar.console.print(f"{self._title}: {message}", highlight=False, markup=False)
        else:
            _print(f"{self._title}: {message}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
