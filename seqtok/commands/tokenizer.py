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


class Side(StrEnum):
    image, text, both = "image", "text", "both"


class Format(StrEnum):
    webdataset, parquet, numpy = "webdataset", "parquet", "numpy"


class OnOutlier(StrEnum):
    error, warn = "error", "warn"


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
    from seqtok.runs.kinds import load_kind
    from seqtok.runs.tokenizer import TokenizerRun
    from seqtok.runs.train import train_run

    words = [*(overrides or []), *(["data.stream.allow_remote=true"] if allow_remote else [])]
    train_run(load_kind(TokenizerRun, config, words), resume, overwrite, dry_run)


@app.command()
def export(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Folder of image shards.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, or a .parquet file.")],
    what: Annotated[What, typer.Option(help="Latents, or embeddings in the space of texts.")] = What.latents,
    format: Annotated[Format | None, typer.Option(help="By default webdataset for latents, else parquet.")] = None,
    side: Annotated[Side, typer.Option(help="Embeddings: of pictures, of all their captions, or both.")] = Side.image,
    prefix: Annotated[list[int] | None, typer.Option(help="Embeddings: tokens that count; repeat; all tokens.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits to export; all by default.")] = None,
    batch: Annotated[int | None, typer.Option(help="Encoded at once; 64 per CPU thread, 256 on a GPU.", min=1)] = None,
    processes: Annotated[int, typer.Option(help="Worker processes (CPU); GPUs: torchrun.", min=1)] = 1,
    on_outlier: Annotated[OnOutlier, typer.Option(help="Latents far from their statistics.")] = OnOutlier.error,
    resume: Resume = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Encode pictures or captions: latent shards for a sequence model, or tables of latents or embeddings."""
    from seqtok.commands.data.view import progress_bar
    from seqtok.export import ExportConfig
    from seqtok.export import export_tokens as run

    settings = {
        "what": what.value,
        "format": format.value if format else None,
        "side": side.value,
        "prefixes": tuple(prefix or ()),
        "splits": tuple(split or ()),
        "batch": batch,
        "processes": processes,
        "on_outlier": on_outlier.value,
    }
    config = ExportConfig.parse(settings, "options")
    with progress_bar() as on_progress:
        run(model, data, out, config, resume=resume, overwrite=overwrite, dry_run=dry_run, on_progress=on_progress)


@app.command()
def reconstruct(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Pictures in any common format.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("reconstruction.png"),
) -> None:
    """One row per picture: itself, then decoded from its first 1, 2, 4, … K tokens."""
    from seqtok.drawing import reconstruct_files

    typer.echo(str(reconstruct_files(model, images, out)))
