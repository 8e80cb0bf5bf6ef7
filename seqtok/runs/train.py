"""One way to train, for every kind of run: settings to the training service and back."""

from __future__ import annotations

import sys
from typing import Any

import psutil
import typer
from torch import nn

from seqtok.runs.base import RunLoader, TrainingRun
from seqtok.runs.settings import dump
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.foundation.machine import memory_limit
from seqtok_core.training import TrainResult, Validation, World, summarise, train

_WEIGHT = 4  # bytes


def train_run(
    run: TrainingRun, resume: str = "auto", overwrite: bool = False, dry_run: bool = False
) -> TrainResult | None:
    """Train, or with `dry_run` only build everything and say what would happen.

    `resume`: "auto", "never" or the path of a checkpoint. Raises what building and training raise.
    """
    _require_memory(run)
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


def _require_memory(run: TrainingRun) -> None:
    """Raises ConfigError where the weights alone are more than this machine's memory, before any of it is taken."""
    try:
        count, _ = run.parameters()
    except RuntimeError as error:  # torch's own: more values than it can count
        raise ConfigError(f"a model of these settings cannot be made ({str(error).splitlines()[0]})") from None
    memory = min(psutil.virtual_memory().total, memory_limit() or sys.maxsize)
    if _WEIGHT * count > memory:
        raise ConfigError(
            f"a model of {count / 1e9:,.1f} thousand million parameters: its weights alone take "
            f"{_WEIGHT * count / 1e9:,.0f} GB, this machine has {memory / 1e9:,.0f}; choose a smaller width or depth"
        )


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
