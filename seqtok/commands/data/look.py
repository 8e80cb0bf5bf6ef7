"""seqtok data inspect, verify and compare: what a folder of shards holds, whether all of it is whole, and whether it is
all of its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from data_pipelines.sources.base import MAX_BAD_SHARE
from data_pipelines.sources.open import SourceConfig
from data_pipelines.sources.records import Fields
from seqtok.commands.data.options import MaxBadShare, of_foreign_tars
from seqtok.commands.data.prepare import READING, SourcePath
from seqtok.commands.options.common import file_to_write
from seqtok.commands.options.flags import flags
from seqtok_core.foundation.errors import DataError

Folder = Annotated[Path, typer.Argument(help="Folder of shards: ours, an export, or foreign tars.")]
READ_AS = of_foreign_tars("labels")
AsJson = Annotated[bool, typer.Option("--json", help="The same facts as JSON, and nothing else.")]


@flags(fields=READ_AS)
def inspect(
    dataset: Folder,
    fields: Fields,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="PNG to write: pictures with their captions.", callback=file_to_write)
    ] = None,
    samples: Annotated[int, typer.Option(help="Looked at per split, evenly over it; 0: all.", min=0)] = 10_000,
    as_json: AsJson = False,
    max_bad_share: MaxBadShare = MAX_BAD_SHARE,
) -> None:
    """Say what a folder of shards holds: counts, sizes, captions by level, labels, duplicates."""
    from data_pipelines.looking.contact_sheet import contact_sheet as draw
    from data_pipelines.looking.inspect import overview
    from data_pipelines.shards.parts import is_export, read_export
    from seqtok.commands.data.look_view import show_export, show_overview

    if is_export(dataset):
        manifest = read_export(dataset)
        if as_json:
            typer.echo(json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False))
        else:
            show_export(dataset, manifest)
        return
    found = overview(dataset, fields, samples, max_bad_share)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1, ensure_ascii=False))
    else:
        show_overview(found)
    if contact_sheet is not None:
        shown = draw(dataset, contact_sheet, fields, max_bad_share=max_bad_share)
        typer.echo(f"{contact_sheet}: {shown} pictures", err=as_json)


@flags(fields=READ_AS)
def verify(
    dataset: Folder,
    fields: Fields,
    decode: Annotated[bool, typer.Option(help="Decode every picture as well.")] = True,
    processes: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 1,
    source: Annotated[
        Path | None,
        typer.Option(help="What it was made from: is all of it here? `data compare` knows further options."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every shard: size, hash, offsets, keys, records, pictures. Exit status 1 if anything is wrong."""
    from data_pipelines.looking.verify import verify_folder as verify_folder
    from seqtok.commands.data.look_view import show_verdict
    from seqtok.commands.data.view import progress_bar

    with progress_bar() as on_progress:
        verdict = verify_folder(dataset, decode=decode, fields=fields, processes=processes, on_progress=on_progress)
    if source is not None:
        try:
            verdict.problems += _differences(dataset, source, SourceConfig(fields=fields))
        except DataError as error:  # refused today: what it was made of is in doubt
            verdict.problems.append(str(error))
    if as_json:
        typer.echo(json.dumps({**vars(verdict), "faults": verdict.faults}, indent=1, ensure_ascii=False))
    else:
        show_verdict(dataset, verdict)
    if verdict.faults:
        raise typer.Exit(1)


@flags(reading=READING)
def compare(
    dataset: Annotated[Path, typer.Argument(help="Folder that `data prepare` made.")],
    source: SourcePath,
    reading: SourceConfig,
) -> None:
    """Say whether a data set holds all that its source holds, as it is read today: with the options of its making.
    Exit status 1 if it does not."""
    if differences := _differences(dataset, source, reading):
        typer.echo("\n".join(differences))
        raise typer.Exit(1)
    typer.echo(_all_there(dataset, source))


def _differences(dataset: Path, source: Path, reading: SourceConfig) -> list[str]:
    from data_pipelines.looking.compare import compare_with_source
    from data_pipelines.sources.open import open_source

    try:
        sources = open_source(source, reading)
    except DataError as error:
        raise DataError(f"{dataset}: its source is not read any more as it is: {error}") from None
    return [f"{dataset}: {difference}" for difference in compare_with_source(dataset, sources)]


def _all_there(dataset: Path, source: Path) -> str:
    from data_pipelines.shards.manifest import read_manifest

    splits = sorted(read_manifest(dataset).splits.items())
    counts = ", ".join(f"{split} {info.samples}" for split, info in splits)
    return f"{dataset}: holds every sample of {source} that is not named as dropped ({counts})"
