"""seqtok tokenizer: train one or take the patches themselves, export what it makes of pictures, look at it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options.common import (
    Candidates,
    DryRun,
    Guidance,
    Overrides,
    Overwrite,
    Picture,
    Resume,
    Steps,
    Temperature,
    sample_settings,
    take_free_cores,
)
from seqtok.commands.options.flags import Flags, flags
from seqtok.commands.train import giving_way
from seqtok.export.config import ExportConfig

app = typer.Typer(help="Tokenizer: train, export, reconstruct, lossless.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="Model folder, or a hub id such as owner/name.")]
_FOREIGN = ("captions_field", "image_member", "caption_members", "max_bad_share")
EXPORTING = Flags(
    ExportConfig,
    names={"prefixes": "prefix", "splits": "split"},
    panels={"Foreign tars": _FOREIGN},
)


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
    words = [*(overrides or []), *(["data.stream.allow_remote=true"] if allow_remote else [])]
    with giving_way(config, words, dry_run):
        from seqtok.runs.kinds import load_kind
        from seqtok.runs.tokenizer import TokenizerRun
        from seqtok.runs.train import train_run

        train_run(load_kind(TokenizerRun, config, words), resume, overwrite, dry_run)


@app.command()
@flags(config=EXPORTING)
def export(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Folder of image shards.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, or a .parquet file.")],
    config: ExportConfig,
    resume: Resume = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Encode pictures or captions: latent shards for a sequence model, or tables of latents or embeddings."""
    from seqtok.commands.data.view import progress_bar
    from seqtok.export.run import export_tokens

    take_free_cores()
    with progress_bar() as on_progress:
        export_tokens(
            model, data, out, config, resume=resume, overwrite=overwrite, dry_run=dry_run, on_progress=on_progress
        )


@app.command()
def reconstruct(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Pictures in any common format.")],
    out: Picture = Path("reconstruction.png"),
    generator: Annotated[
        str | None, typer.Option(help="Sequence model of this tokenizer: draws what a prefix leaves open.")
    ] = None,
    drawings: Annotated[int | None, typer.Option(help="Drawings of each prefix.", min=1)] = None,
    candidates: Candidates = 1,
    captions: Annotated[
        Path | None,
        typer.Option(help="Text file, one caption a line: each prefix names the nearest; without, its own."),
    ] = None,
    swap: Annotated[bool, typer.Option("--swap", help="Also exchange the first tokens of the two pictures.")] = False,
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Pictures from their first 1, 2, 4, … K tokens: averaged by the decoder, and drawn by a sequence model."""
    from seqtok.pictures.reconstruct import ReconstructConfig, reconstruct_files, say_numbers

    sample = {"guidance": 1.0, **sample_settings(guidance, temperature, steps)}
    given = {"generator": generator, "drawings": drawings, "captions": captions, "swap": swap, "seed": seed}
    given |= {"candidates": candidates}
    values = {key: value for key, value in given.items() if value is not None}
    config = ReconstructConfig.parse({**values, "sample": sample}, "options")
    take_free_cores()
    numbers = reconstruct_files(model, images, out, config)
    say_numbers(numbers, as_json)


@app.command()
def lossless(
    data: Annotated[Path, typer.Argument(help="Folder of image shards with a captions model.")],
    out: Annotated[Path, typer.Argument(help="Model folder to write.")],
    patch_size: Annotated[int, typer.Option(help="Pixels per side of a patch, which becomes a token.", min=1)] = 8,
    order: Annotated[str, typer.Option(help="Which patch comes first: raster, snake, z_order, …")] = "raster",
) -> None:
    """A tokenizer that learns nothing: its tokens are the patches themselves. What sequence models are compared on."""
    from seqtok.runs.lossless import write_lossless

    take_free_cores()
    typer.echo(str(write_lossless(data, out, patch_size, order)))
