"""What runs have made, on a page: seqtok report, the results of one or several; seqtok explore, models at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options.common import folder_to_write, require_installed, take_free_cores


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of an evaluation, a demo or a training; the first is shown in full.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write report.html to.", callback=folder_to_write)] = Path(
        "report"
    ),
) -> None:
    """Write one self-contained HTML file with curves and numbers; further runs are drawn beside the first."""
    from seqtok.evaluation.report.found import found_in
    from seqtok.evaluation.report.report import write_report

    found = {str(run): found_in(run) for run in runs}
    results, pictures = found[str(runs[0])]
    others = {name: value for name, (value, _) in found.items() if name != str(runs[0])}
    typer.echo(str(write_report(out, results, pictures, others or None)))


def explore(
    run: Annotated[
        str | None,
        typer.Argument(help="A demo's folder, or a run or model folder of a tokenizer (or a hub id)."),
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Model folder of the tokenizer, in place of the run's.")] = None,
    generator: Annotated[
        str | None, typer.Option(help="Model folder of the sequence model, in place of the run's.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine's own let others in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen at; 0: any that is free.", min=0, max=65535)] = 7860,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """A web page: slide the prefix of a picture, swap tokens, type a prompt and watch it emerge."""
    require_installed("explorer", ("fastapi", "uvicorn"))
    from seqtok.explorer.found import find_parts
    from seqtok.explorer.serve import serve

    parts = find_parts(run, tokenizer, generator)
    take_free_cores()
    serve(parts, host, port, open_page)
