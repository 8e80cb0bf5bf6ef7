"""What a judgement says on the terminal, and where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from seqtok.evaluation.report.report import RESULTS, merge, write_results


def show_rows(title: str, rows: Mapping[str, Mapping[str, float | None]]) -> None:
    """A table with three digits, a dash where there is no number; all rows have the columns of the first."""
    columns = list(next(iter(rows.values())))
    table = Table("", *columns, title=title)
    for name, values in rows.items():
        table.add_row(name, *("-" if values[c] is None else f"{values[c]:.3f}" for c in columns))
    Console().print(table)


def keep_results(out: Path | None, results: Mapping[str, Any]) -> None:
    """Write `out`/results.json, where a folder is given, and say so."""
    if out is not None:
        write_results(out, merge(results))
        typer.echo(str(out / RESULTS))
