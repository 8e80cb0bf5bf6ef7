"""seqtok train: what a config says, whatever its kind; and what every command that trains does about signals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options.common import DryRun, Overrides, Overwrite, Resume


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")],
    overrides: Overrides = None,
    resume: Resume = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train what a config of any kind describes; under torchrun the same command uses every process."""
    with giving_way(config, overrides or [], dry_run):
        from seqtok.runs.kinds import load_training_run
        from seqtok.runs.train import train_run

        train_run(load_training_run(config, overrides or []), resume, overwrite, dry_run)


@contextlib.contextmanager
def giving_way(config: str, overrides: Sequence[str], dry_run: bool = False) -> Iterator[None]:
    """Around all that a training command does, from before anything heavy is loaded: the word that an earlier stop
    left for a scheduler is taken away, whether this start succeeds or not, and a signal ends the command with a new
    one. Raises Preempted."""
    from seqtok.runs.settings import read_values
    from seqtok_core.foundation import run_record
    from seqtok_core.foundation.errors import Preempted

    named = read_values(config, overrides).get("out")
    out = Path(named) if isinstance(named, str) and not dry_run else None
    try:
        with run_record.ending_at_once():
            if out is not None:
                run_record.take_stop(out)
            yield
    except run_record.Stopped as stop:
        if out is not None:
            raise run_record.stopped_early(out, str(stop)) from None
        raise Preempted(f"{config}: stopped by {stop} before the first step; start the same command again") from None
