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
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from data_pipelines.inspect import Overview, Verdict
    from data_pipelines.manifest import Manifest
    from data_pipelines.prepare import Progress

_PLAIN_EVERY = 5.0  # seconds between lines where there is no terminal
_PROBLEMS_SHOWN = 20


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


def show_overview(found: Overview) -> None:
    console = Console()
    kind = f"{found.kind}, {found.image_size} px" if found.image_size else found.kind
    origin = "data set of seqtok" if found.own else "foreign tars"
    console.print(f"{found.folder}: {origin}, {kind}, up to {found.levels} captions", highlight=False)
    table = Table("split", "samples", "shards", "MiB", "captions each", "words by level", "dropped")
    for part in found.splits:
        table.add_row(
            part.split,
            str(part.samples),
            str(part.shards),
            f"{part.bytes / 2**20:.1f}",
            ", ".join(f"{n}: {count}" for n, count in part.captions_per_sample.items()),
            " ".join(f"{words:.1f}" for words in part.words_per_level),
            ", ".join(f"{reason} {count}" for reason, count in part.dropped.items()) or "0",
        )
    console.print(table)
    labels = {label: max(part.classes[label] for part in found.splits) for label in found.splits[0].classes}
    if labels:
        listed = ", ".join(f"{label} {count}" for label, count in labels.items())
        console.print(f"labels and their distinct values: {listed}", highlight=False)
    console.print("captions of the first sample, coarse to fine:")
    for text in found.splits[0].examples:
        console.print(f"  {text}", highlight=False, markup=False)


def show_verdict(folder: Path, verdict: Verdict) -> None:
    console = Console()
    for problem in verdict.problems[:_PROBLEMS_SHOWN]:
        console.print(problem, highlight=False, soft_wrap=True, markup=False)
    if len(verdict.problems) > _PROBLEMS_SHOWN:
        console.print(f"and {len(verdict.problems) - _PROBLEMS_SHOWN} more")
    state = f"{len(verdict.problems)} problems" if verdict.problems else "all well"
    text = f"{folder}: {verdict.shards} shards, {verdict.samples} samples: {state}"
    console.print(text, highlight=False, soft_wrap=True, markup=False)
