"""What `seqtok data` prints: tables, and a progress bar with images per second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from data_pipelines.executors.progress import Progress
    from data_pipelines.shards.manifest import Manifest

_PLAIN_EVERY = 5.0  # seconds between lines where there is no terminal
_REASONS_SHOWN = 4  # on one line; all of them stand in dataset.json


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """A function that shows where the work stands: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    try:
        if console.is_terminal:
            with _bar(console) as show:
                yield show
        else:
            yield _plain(console)
    except KeyboardInterrupt:
        console.print("interrupted: finished shards are kept, the same command continues", highlight=False)
        raise


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Callable[[Progress], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
    )
    pace = Pace()
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("images", total=None, state="")

        def show(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.samples_done,
                total=progress.samples,
                description="images" if progress.stage == "shards" else "reading names",
                state=", ".join(pace.describe(progress)),
            )

        yield show


class Pace:
    """Images per second and time left, from what was built in this run: what was found finished costs nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start: float | None = None  # when the first shard was handed out

    def describe(self, progress: Progress) -> list[str]:
        if progress.stage == "names":
            return []
        if self._start is None and progress.shards_begun:
            self._start = self._clock()
        parts = [f"{progress.shards_done} of {progress.shards} shards"]
        seconds = self._clock() - self._start if self._start is not None else 0.0
        if progress.samples_built and seconds > 0:
            speed = progress.samples_built / seconds
            left = timedelta(seconds=round((progress.samples - progress.samples_done) / speed))
            parts += [f"{speed:.0f} images/s", f"{left} left"]
        if found := progress.samples_done - progress.samples_built:
            parts.append(f"{found} images were there")
        reasons = sorted(progress.dropped.items(), key=lambda item: -item[1])
        if reasons:
            listed = ", ".join(f"{reason} {count}" for reason, count in reasons[:_REASONS_SHOWN])
            more = ", ..." if len(reasons) > _REASONS_SHOWN else ""
            parts.append(f"{sum(progress.dropped.values())} dropped ({listed}{more})")
        if progress.workers_lost:
            parts.append(f"{progress.workers_lost} workers died, their shards are done again")
        return parts


def _plain(console: Console) -> Callable[[Progress], None]:
    """The first line comes when the names are read, the next with the first shard that is handed out."""
    pace, last, milestones = Pace(), 0.0, set[tuple[bool, bool]]()

    def show(progress: Progress) -> None:
        nonlocal last
        milestone = (
            progress.stage == "shards" and progress.shards_begun > 0,
            progress.samples_done == progress.samples,
        )
        state = pace.describe(progress)
        now = time.monotonic()
        if milestone in milestones and now - last < _PLAIN_EVERY:
            return
        last = now
        milestones.add(milestone)
        count = f"{progress.samples_done} of {progress.samples} {'images' if state else 'names read'}"
        console.print(", ".join([count, *state]), highlight=False, soft_wrap=True, markup=False, emoji=False)

    return show


def show_manifest(out: Path, manifest: Manifest) -> None:
    for split, info in manifest.splits.items():
        notes = [f"{count} dropped: {reason}" for reason, count in info.dropped.items()]
        notes += [f"{count} {note}" for note, count in info.notes.items()]
        parts = manifest.source.get("splits", {}).get(split, {}).get("parts", ())
        shuffled = ", shuffled" if any("shuffled" in part for part in parts) else ""
        text = f"{out}: {split}: {info.samples} samples in {len(info.shards)} shards{shuffled}"
        Console().print("; ".join([text, *notes]), highlight=False, soft_wrap=True, markup=False, emoji=False)
