"""seqtok tokenizer: train one, export what it makes of pictures, look at its reconstructions."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options import DryRun, Overrides, Overwrite, Resume

app = typer.Typer(help="Tokenizer: train, export, reconstruct.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="Model folder, or a hub id such as owner/name.")]


class What(StrEnum):
    latents, embeddings = "latents", "embeddings"


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")],
    overrides: Overrides = None,
    resume: Resume = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let data.stream.shards run commands and read the network.")
    ] = False,
) -> None:
    """Train a tokenizer; under torchrun the same command uses every process."""
    from seqtok.config import load_tokenizer_run
    from seqtok.training_runs import train_tokenizer

    words = [*(overrides or []), *(["data.stream.allow_remote=true"] if allow_remote else [])]
    train_tokenizer(load_tokenizer_run(config, words), resume, overwrite, dry_run)


@app.command()
def export(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Folder of image shards.")],
    out: Annotated[Path, typer.Argument(help="Folder of latent shards, or a .parquet file, to write.")],
    what: Annotated[What, typer.Option(help="Latent shards, or one embedding per picture.")] = What.latents,
    prefix: Annotated[int | None, typer.Option(help="Embeddings: tokens that count; all by default.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits to export; all by default.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures encoded at once.", min=1)] = 256,
    resume: Resume = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Encode pictures: latent shards for a sequence model, or a Parquet file of (key, embedding)."""
    from seqtok.export import export_embeddings, export_latents

    if what is What.latents:
        export_latents(model, data, out, split, batch, resume, overwrite)
    else:
        export_embeddings(model, data, out, split, prefix, batch, overwrite)


@app.command()
def reconstruct(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Pictures in any common format.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("reconstruction.png"),
) -> None:
    """One row per picture: itself, then decoded from its first 1, 2, 4, … K tokens."""
    from seqtok.pictures import reconstruct_files

    typer.echo(str(reconstruct_files(model, images, out)))
