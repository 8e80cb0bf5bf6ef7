"""What `seqtok data` prints: tables, and a progress bar with images per second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

if TYPE_CHECKING:
    from data_pipelines.manifest import Manifest
    from data_pipelines.prepare import Progress

_PLAIN_EVERY = 5.0  # seconds between lines where there is no terminal


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.0f} images/s")


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """A function that shows where the work stands: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("images", total=None)

        def show(progress: Progress) -> None:
            bad = f", {progress.bad} bad" if progress.bad else ""
            bar.update(task, completed=progress.samples_done, total=progress.samples, description=f"images{bad}")

        yield show


def _plain(console: Console) -> Callable[[Progress], None]:
    start = last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _PLAIN_EVERY:
            return
        last = now
        speed = progress.samples_done / (now - start)
        console.print(f"{progress.samples_done} of {progress.samples} images, {speed:.0f} images/s", highlight=False)

    return show


def show_manifest(out: Path, manifest: Manifest) -> None:
    for split, info in manifest.splits.items():
        notes = [f"{count} dropped: {reason}" for reason, count in info.dropped.items()]
        notes += [f"{count} {note}" for note, count in info.notes.items()]
        text = f"{out}: {split}: {info.samples} samples in {len(info.shards)} shards"
        Console().print("; ".join([text, *notes]), highlight=False, soft_wrap=True, markup=False)
