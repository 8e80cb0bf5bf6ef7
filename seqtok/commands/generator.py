"""seqtok generator: train a sequence model, draw pictures from prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options import DryRun, Overrides, Overwrite, Resume

app = typer.Typer(help="Sequence model: train, sample.", no_args_is_help=True)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")],
    overrides: Overrides = None,
    resume: Resume = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train a sequence model on latent shards; under torchrun the same command uses every process."""
    from seqtok.runs.generator import GeneratorRun
    from seqtok.runs.kinds import load_kind
    from seqtok.runs.train import train_run

    train_run(load_kind(GeneratorRun, config, overrides or []), resume, overwrite, dry_run)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="Model folder of a sequence model, or a hub id.")],
    tokenizer: Annotated[str, typer.Argument(help="Model folder of the tokenizer of its latents.")],
    prompt: Annotated[list[str], typer.Option(help="What to draw; repeat for several.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("samples.png"),
    guidance: Annotated[float, typer.Option(min=0)] = 3.0,
    temperature: Annotated[float, typer.Option(min=0)] = 1.0,
    steps: Annotated[int, typer.Option(help="Solver steps per token.", min=1)] = 10,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    prefix: Annotated[int | None, typer.Option(help="Stop after this many tokens; all by default.")] = None,
) -> None:
    """One row per prompt: the picture after 1, 2, 4, … tokens."""
    from seqtok.drawing import sample_prompts

    path = sample_prompts(model, tokenizer, prompt, out, guidance, temperature, steps, seed, prefix)
    typer.echo(str(path))
