"""seqtok train: what a config says, whatever its kind."""

from __future__ import annotations

from typing import Annotated

import typer

from seqtok.commands.options import DryRun, Overrides, Overwrite, Resume


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")],
    overrides: Overrides = None,
    resume: Resume = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train what a config of any kind describes; under torchrun the same command uses every process."""
    from seqtok.runs.kinds import load_training_run
    from seqtok.runs.train import train_run

    train_run(load_training_run(config, overrides or []), resume, overwrite, dry_run)
