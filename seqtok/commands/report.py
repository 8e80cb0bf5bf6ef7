"""seqtok report: the results of one or several runs on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options.common import folder_to_write


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
