"""Progress on rank 0: a bar with images/s and the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from seqtok_core.training.processes.distributed import World

_PLAIN_EVERY_S = 15.0  # seconds between two plain lines


class ProgressBar:
    """A context manager; silent on every process but the first."""

    def __init__(self, world: World, title: str, total: int, done: int) -> None:
        self._active = world.is_first
        self._title, self._total, self._start = title, total, done
        self._began = self._spoke = time.monotonic()
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
        now = time.monotonic()
        rate = (images - self._start) / max(now - self._began, 1e-9)
        if self._bar is not None:
            shown = {} if loss is None else {"loss": f"{loss:.4f}"}
            self._bar.update(self._task, completed=images, rate=f"{rate:.0f}", **shown)
        elif loss is not None and (now - self._spoke >= _PLAIN_EVERY_S or images >= self._total):
            self._spoke = now
            left = (self._total - images) / max(rate, 1e-9)
            print(
                f"{self._title}: {images}/{self._total} images, {rate:.0f} images/s, "
                f"{int(left) // 60}:{int(left) % 60:02d} left, loss {loss:.4f}",
                file=sys.stderr,
                flush=True,
            )

    def say(self, message: str | None) -> None:
        """A line beside the bar, from the first process."""
        if message is None or not self._active:
            return
        if self._bar is not None:
            self._bar.console.print(f"{self._title}: {message}", highlight=False, markup=False)
        else:
            print(f"{self._title}: {message}", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
