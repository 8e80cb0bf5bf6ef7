"""seqtok data: draw or import image-text pairs, learn a vocabulary, see what a folder holds, verify it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.base import MAX_BAD_SHARE
from data_pipelines.sources.records import Fields
from seqtok.commands.data import look as data_look
from seqtok.commands.data.options import (
    DryRun,
    MaxBadShare,
    Out,
    Overwrite,
    Resume,
    ResumeOption,
    of_foreign_tars,
)
from seqtok.commands.data.prepare import prepare, run_prepare
from seqtok.commands.options.common import Alphabet, Font, file_to_write
from seqtok.commands.options.flags import Flags, flags
from seqtok_core.foundation.errors import ConfigError

app = typer.Typer(help="Image-text pairs: draw, import, inspect, verify, compare.", no_args_is_help=True)


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
    from data_pipelines.sources.drawn import ScenesSource

    counts = {"train": train, "val": val, "test": test}
    sources = {s: ScenesSource(s, n, size, seed) for s, n in counts.items() if n}  # type: ignore[arg-type]
    config = how.model_copy(update={"name": "scenes", "size": size})
    run_prepare({**sources}, out, config, resume, overwrite, dry_run)


@app.command()
@flags(how=HOW)
def glyphs(
    out: Out,
    *,
    train: Annotated[int, typer.Option(help="Number of training pages.", min=0)] = 20000,
    val: Annotated[int, typer.Option(help="Number of validation pages.", min=0)] = 1000,
    test: Annotated[int, typer.Option(help="Number of held-out pages.", min=0)] = 1000,
    count: Annotated[
        list[int] | None, typer.Option(help="Glyphs of a page; repeat. 1, 2, 4, … 64, evenly.", min=1)
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels per side.", min=1)] = 96,
    alphabet: Alphabet = None,
    font: Font = None,
    how: PrepareConfig,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    resume: ResumeOption = Resume.auto,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Draw pages of random glyphs, to measure how many characters a code holds."""
    from data_pipelines.glyphs import ALPHABET, COUNTS, load_typeface, require_counts, require_page_size
    from data_pipelines.sources.drawn import GlyphsSource

    cell = require_page_size(size, f"size={size}:")
    typeface = load_typeface(ALPHABET if alphabet is None else alphabet, font, cell)
    each = require_counts(count or COUNTS)
    counts = {"train": train, "val": val, "test": test}
    sources = {s: GlyphsSource(s, n, typeface, each, seed) for s, n in counts.items() if n}  # type: ignore[arg-type]
    run_prepare({**sources}, out, how.model_copy(update={"name": "glyphs", "size": size}), resume, overwrite, dry_run)


app.command()(prepare)


@app.command()
@flags(fields=of_foreign_tars())
def text(
    dataset: Annotated[str, typer.Argument(help="Folder of shards; with --samples a stream: paths, addresses, a::b.")],
    fields: Fields,
    vocab: Annotated[int, typer.Option(help="Most pieces of the vocabulary.", min=1)] = 4096,
    split: Annotated[str, typer.Option(help="Split of the folder whose captions are learned from.")] = "train",
    out: Annotated[
        Path | None, typer.Option(help="File to write, by default DATASET/captions.model.", callback=file_to_write)
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Learn from so many samples of a stream.", min=1)] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let a stream run commands and read the network.")
    ] = False,
    max_bad_share: MaxBadShare = MAX_BAD_SHARE,
    overwrite: Overwrite = False,
) -> None:
    """Learn the caption vocabulary of a data set, or of a stream."""
    from data_pipelines.reading.vocabulary import FILE, learn_vocabulary, lengths_of, token_lengths, train_vocabulary

    if samples is None:
        folder, path = _folder(dataset), out or Path(dataset) / FILE
        how: dict[str, Any] = {"split": split, "fields": fields, "max_bad_share": max_bad_share}
        tokenizer = train_vocabulary(folder, vocab, path=path, overwrite=overwrite, **how)
        lengths = token_lengths(folder, tokenizer, **how)
    else:
        path = out or Path(FILE)
        pyramids = _streamed(dataset, samples, fields, allow_remote, max_bad_share)
        tokenizer = learn_vocabulary(pyramids, vocab, path, overwrite)
        lengths = lengths_of(pyramids, tokenizer)
        typer.echo(f"{path}: learned from {len(pyramids)} samples of the stream")
    typer.echo(
        f"{path}: {tokenizer.vocab_size} pieces; tokens per caption: mean {lengths.mean:.1f}, "
        f"99 % at most {lengths.p99}, longest {lengths.longest}"
    )


def _folder(dataset: str) -> Path:
    from data_pipelines.tars.remote import scheme_of

    if scheme_of(dataset) or (not Path(dataset).exists() and any(mark in dataset for mark in ("::", "{", "*"))):
        raise ConfigError(f"{dataset}: a stream; say how many samples of it to learn from (--samples)")
    return Path(dataset)


def _streamed(
    stream: str, samples: int, fields: Fields, allow_remote: bool, max_bad_share: float
) -> list[tuple[str, ...]]:
    from data_pipelines.reading.vocabulary import captions_of_stream
    from data_pipelines.tars.remote import expand

    return list(captions_of_stream(expand([stream], allow_remote), samples, fields, max_bad_share))


app.command()(data_look.inspect)
app.command()(data_look.verify)
app.command()(data_look.compare)
