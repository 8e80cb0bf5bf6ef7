"""One way to train, for every kind of run: settings to the training service and back."""

from __future__ import annotations

from typing import Any

import typer
from torch import nn

from seqtok.runs.base import RunLoader, TrainingRun
from seqtok.runs.settings import dump
from seqtok_core.training import TrainResult, Validation, World, summarise, train


def train_run(
    run: TrainingRun, resume: str = "auto", overwrite: bool = False, dry_run: bool = False
) -> TrainResult | None:
    """Train, or with `dry_run` only build everything and say what would happen.

    `resume`: "auto", "never" or the path of a checkpoint. Raises what building and training raise.
    """
    objective, loader = run.build()
    if dry_run:
        _announce(run, objective, loader)
        return None
    hooks = run.hooks()
    result = train(
        objective,
        loader,
        run.train,
        run.out,
        resolved=_identity(run, loader),
        resumable=run.resumable_keys(),
        resume=resume,
        overwrite=overwrite,
        on_sample=hooks.on_sample,
        on_finish=hooks.on_finish,
        validation=None if run.validation is None else Validation(run.validation.every, hooks.on_validate),
        data=run.describe_data(loader),
    )
    if World.from_environment().is_first:
        typer.echo(summarise(result), err=True)
    return result


def _identity(run: TrainingRun, loader: RunLoader) -> dict[str, Any]:
    """What must be equal for a run to be continued: the settings and what it learns from."""
    return {**run.model_dump(mode="json", exclude={"out"}), **run.content(loader)}


def _announce(run: TrainingRun, objective: nn.Module, loader: RunLoader) -> None:
    parameters = sum(p.numel() for p in objective.parameters())
    typer.echo(dump(run))
    typer.echo(
        f"would train {parameters / 1e6:.2f} M parameters for {run.train.steps} steps of {run.train.batch} "
        f"({run.describe_data(loader)}) into {run.out}"
    )
