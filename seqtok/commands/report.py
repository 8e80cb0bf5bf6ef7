"""seqtok report: the results of one or several runs on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders with a results.json; the first is shown in full.")],
    out: Annotated[Path, typer.Option(help="Folder to write report.html to.")] = Path("report"),
) -> None:
    """Write one self-contained HTML file with curves and numbers; further runs are drawn beside the first."""
    from seqtok.evaluation.report.kept_pictures import kept_pictures
    from seqtok.evaluation.report.report import read_results, write_report

    results = {str(run): read_results(run) for run in runs}
    first = str(runs[0])
    others = {name: value for name, value in results.items() if name != first}
    typer.echo(str(write_report(out, results[first], kept_pictures(runs[0]), others or None)))
