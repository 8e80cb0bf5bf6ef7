"""seqtok generator: train a sequence model, draw pictures from prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options import (
    DryRun,
    Guidance,
    Overrides,
    Overwrite,
    Resume,
    Steps,
    Temperature,
    sample_settings,
    take_free_cores,
)

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
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw; repeat for several.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Text file, one prompt a line; blank lines are skipped.")] = None,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("samples.png"),
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    prefix: Annotated[int | None, typer.Option(help="Stop after this many tokens; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was asked and used, as JSON.")] = False,
) -> None:
    """One row per prompt: the picture after 1, 2, 4, … tokens."""
    from ar_model import SampleConfig
    from seqtok.pictures.sample import read_prompts, sample_prompts
    from seqtok_core.foundation.errors import ConfigError

    wanted = [*(prompt or []), *(read_prompts(prompts) if prompts is not None else [])]
    if not wanted:
        raise ConfigError("nothing to draw: say --prompt TEXT (repeatable) or --prompts FILE")
    config = SampleConfig.parse(sample_settings(guidance, temperature, steps), "options")
    take_free_cores()
    used = sample_prompts(model, tokenizer, wanted, out, config, seed, prefix)
    typer.echo(json.dumps(used, indent=1, ensure_ascii=False) if as_json else str(out))
