"""seqtok tokenizer train and seqtok generator train: settings to the training service and back."""

from __future__ import annotations

import typer
from torch import nn

from data_pipelines.reading.image_text import ImageTextLoader
from data_pipelines.reading.latent_text import LatentTextLoader
from data_pipelines.reading.stream import StreamLoader
from seqtok.runs.generator import GeneratorHooks, GeneratorRun, build_generator
from seqtok.runs.settings import dump
from seqtok.runs.tokenizer import TokenizerHooks, TokenizerRun, build_tokenizer
from seqtok_core.foundation.files import sha256_file
from seqtok_core.training import TrainResult, World, summarise, train


def train_tokenizer(
    run: TokenizerRun, resume: str = "auto", overwrite: bool = False, dry_run: bool = False
) -> TrainResult | None:
    """Train, or with `dry_run` only build everything and say what would happen."""
    objective, loader = build_tokenizer(run)
    if dry_run:
        _announce(run, objective.tokenizer, loader.samples)
        return None
    return _train(run, objective, loader, TokenizerHooks(run), resume, overwrite)


def train_generator(
    run: GeneratorRun, resume: str = "auto", overwrite: bool = False, dry_run: bool = False
) -> TrainResult | None:
    """Train, or with `dry_run` only build everything and say what would happen."""
    objective, loader = build_generator(run)
    if dry_run:
        _announce(run, objective.generator, loader.samples)
        return None
    return _train(run, objective, loader, GeneratorHooks(run), resume, overwrite)


def _train(
    run: TokenizerRun | GeneratorRun,
    objective: nn.Module,
    loader: ImageTextLoader | StreamLoader | LatentTextLoader,
    hooks: TokenizerHooks | GeneratorHooks,
    resume: str,
    overwrite: bool,
) -> TrainResult:
    result = train(
        objective,
        loader,
        run.train,
        run.out,
        resolved=_identity(run, loader.fingerprint),
        resume=resume,
        overwrite=overwrite,
        on_sample=hooks.on_sample,
        on_finish=hooks.on_finish,
    )
    if World.from_environment().is_first:
        typer.echo(summarise(result), err=True)
    return result


def _identity(run: TokenizerRun | GeneratorRun, data: str) -> dict:
    """What must be equal for a run to be continued: the settings, the data and its captions model."""
    captions = sha256_file(run.data.captions_path)
    return {**run.model_dump(mode="json", exclude={"out"}), "data_fingerprint": data, "captions_sha256": captions}


def _announce(run: TokenizerRun | GeneratorRun, model: object, samples: int) -> None:
    parameters = sum(p.numel() for p in model.parameters())  # type: ignore[attr-defined]
    typer.echo(dump(run))
    typer.echo(
        f"would train {parameters / 1e6:.2f} M parameters for {run.train.steps} steps of {run.train.batch} "
        f"({run.train.images / max(samples, 1):.1f} epochs of {samples}) into {run.out}"
    )
