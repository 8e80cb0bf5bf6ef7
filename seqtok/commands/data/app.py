"""seqtok data: draw or import image-text pairs, learn a vocabulary, see what a folder holds, verify it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_pipelines.prepare.settings import PrepareConfig
from seqtok.commands.data import look as data_look
from seqtok.commands.data.options import DryRun, Out, Overwrite, Resume, ResumeOption
from seqtok.commands.data.prepare import prepare, run_prepare
from seqtok.commands.options import file_to_write
from seqtok.flags import Flags, flags

app = typer.Typer(help="Image-text pairs: draw, import, inspect, verify.", no_args_is_help=True)


Folder = Annotated[Path, typer.Argument(help="Folder of shards.")]
CaptionsField = Annotated[str, typer.Option(help="Record field with the captions, coarse to fine.")]


HOW = Flags(PrepareConfig, only=("processes", "engine", "ray_address"), defaults={"processes": 2})


@app.command()
@flags(how=HOW)
def scenes(
    out: Out,
    *,
    train: Annotated[int, typer.Option(help="Number of training scenes.", min=0)] = 20000,
    val: Annotated[int, typer.Option(help="Number of validation scenes.", min=0)] = 1000,
    test: Annotated[int, typer.Option(help="Number of held-out scenes.", min=0)] = 1000,
    size: Annotated[int, typer.Option(help="Pixels per side.", min=8)] = 32,
    how: PrepareConfig,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    resume: ResumeOption = Resume.auto,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Draw scenes of coloured shapes with caption pyramids: no data set is needed."""
    from data_pipelines.sources.drawn_scenes import ScenesSource

    counts = {"train": train, "val": val, "test": test}
    sources = {s: ScenesSource(s, n, size, seed) for s, n in counts.items() if n}  # type: ignore[arg-type]
    config = how.model_copy(update={"name": "scenes", "size": size})
    run_prepare({**sources}, out, config, resume, overwrite, dry_run)


app.command()(prepare)


@app.command()
def text(
    dataset: Folder,
    vocab: Annotated[int, typer.Option(help="Most pieces of the vocabulary.", min=1)] = 4096,
    split: Annotated[str, typer.Option(help="Split whose captions are learned from.")] = "train",
    out: Annotated[
        Path | None, typer.Option(help="File to write, by default DATASET/captions.model.", callback=file_to_write)
    ] = None,
    captions_field: CaptionsField = "captions",
    overwrite: Overwrite = False,
) -> None:
    """Learn the caption vocabulary of a data set."""
    from data_pipelines.reading.vocabulary import FILE, token_lengths, train_vocabulary
    from data_pipelines.sources.records import Fields

    fields = Fields(captions=captions_field)
    path = out or dataset / FILE
    tokenizer = train_vocabulary(dataset, vocab, split=split, path=path, overwrite=overwrite, fields=fields)
    lengths = token_lengths(dataset, tokenizer, split, fields)
    typer.echo(
        f"{path}: {tokenizer.vocab_size} pieces; tokens per caption: mean {lengths.mean:.1f}, "
        f"99 % at most {lengths.p99}, longest {lengths.longest}"
    )


app.command()(data_look.inspect)
app.command()(data_look.verify)
