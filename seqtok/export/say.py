"""What an export tells its user: before it begins, and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from data_pipelines.shards import latent_check
from data_pipelines.shards.output import Resume, refuse_used
from data_pipelines.shards.parts import ExportManifest
from seqtok.export.config import is_single_file
from seqtok.export.single_file import is_assembled
from seqtok.export.stores import Result
from seqtok.export.work import ExportTask, ExportWork


def announce(work: ExportWork, tasks: Sequence[ExportTask], out: Path, resume: Resume, overwrite: bool) -> None:
    """For --dry-run. Raises DataError when OUT holds something else."""
    first = work.stores[0]
    if is_single_file(out):
        is_assembled(out, first.plan, overwrite)
    refuse_used(first.out, first.plan, overwrite=overwrite, resume=resume)
    done = 0 if overwrite else sum(all(s.is_done(t.split, t.number) for s in work.stores) for t in tasks)
    form, tables = work.config.format_of(out), " and ".join(store.table for store in work.stores)
    for split, sizes in work.source.sizes.items():
        typer.echo(f"{out}: would write {tables} of split {split}, {sum(sizes)} pictures in {len(sizes)} shards")
    typer.echo(f"{out}: as {form}, tokenizer {work.fingerprints['tokenizer_id']}, {done} of {len(tasks)} shards done")


def say_result(out: Path, work: ExportWork, result: Result) -> None:
    """What was written; warnings go to stderr."""
    model = work.fingerprints["tokenizer_id"]
    total = sum(sum(sizes) for sizes in work.source.sizes.values())
    if isinstance(result, ExportManifest):
        check = result.check
        for table, splits in result.tables.items():
            rows = sum(part.rows for parts in splits.values() for part in parts)
            shape = " x ".join(map(str, result.shapes[table]))
            typer.echo(f"{out}: {table} of {total} pictures, {rows} rows of {shape}, tokenizer {model}")
        if check.get("captions_cut"):
            typer.echo(f"{out}: {check['captions_cut']} captions were longer than the text tower and cut")
    else:
        check = result.source["check"]
        shape = " x ".join(map(str, result.source["shape"]))
        typer.echo(f"{out}: {total} pictures as {shape} latents of tokenizer {model}")
    for warning in latent_check.warnings_of(check):
        typer.echo(f"seqtok: {out}: {warning}", err=True)
