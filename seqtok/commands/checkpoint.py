"""seqtok checkpoint: what a run has saved, whether it is whole, and a model folder out of it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options.common import take_free_cores

app = typer.Typer(help="Checkpoints of a run: list, verify, export.", no_args_is_help=True)
Where = Annotated[Path, typer.Argument(help="A run folder, or one checkpoint in it.")]


class Weights(StrEnum):
    averaged, raw = "averaged", "raw"


@app.command(name="list")
def show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="The same facts as JSON, and nothing else.")] = False,
) -> None:
    """One line per checkpoint; sizes are checked, contents are not (verify does that)."""
    from rich.console import Console
    from rich.table import Table

    from seqtok.runs.checkpoints import facts, table

    if as_json:
        typer.echo(json.dumps(facts(run), indent=1, ensure_ascii=False))
        return
    shown = Table("step", "images", "size", "age", "written by", "state", box=None)
    for row in table(run):
        shown.add_row(*row)
    Console().print(shown)


@app.command()
def verify(path: Where) -> None:
    """Read every byte and compare with the manifest; exit status 1 when something differs."""
    from seqtok.runs.checkpoints import verify_all as check
    from seqtok_core.foundation.errors import DataError

    found = check(path)
    for checkpoint, problem in found:
        typer.echo(f"{checkpoint}: {'whole' if problem is None else problem}")
    damaged = [problem for _, problem in found if problem is not None]
    if damaged or not found:
        raise DataError(f"{path}: {len(damaged)} of {len(found)} checkpoints damaged; `--resume auto` passes them by")


@app.command()
def export(
    path: Where,
    out: Annotated[Path, typer.Argument(help="Model folder to write.")],
    weights: Annotated[Weights, typer.Option(help="The average of the weights, or those trained last.")] = (
        Weights.averaged
    ),
    data: Annotated[Path | None, typer.Option(help="Data folder, if it is not where the run's config says.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Model folder of its tokenizer, if that is not where the config says.")
    ] = None,
) -> None:
    """Make a model folder of a checkpoint, as the finished run writes it; needs one process, of any machine."""
    from seqtok.runs.checkpoints import export_model

    take_free_cores()
    source = export_model(path, out, weights is Weights.averaged, data, tokenizer)
    typer.echo(f"{out}: {weights} weights of {source}")
