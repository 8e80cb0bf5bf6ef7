"""What a judge found: tables on the terminal, and results.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from seqtok.evaluation.report.report import RESULTS, merge, write_results


def print_attributes(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Attribute -> its row, as `reader` and `captions` of results.json have them."""
    columns = ("value", "chance", "seen", "unseen", "real")
    print_table(title, {name: {c: row[c] for c in columns} for name, row in rows.items()})


def print_table(title: str, rows: Mapping[str, Mapping[str, float | None]]) -> None:
    """Row -> column -> share or count; None is a dash."""
    columns = list(next(iter(rows.values())))
    table = Table("", *columns, title=title)
    for name, values in rows.items():
        table.add_row(name, *(_cell(values[c]) for c in columns))
    Console().print(table)


def _cell(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def keep_results(out: Path | None, results: Mapping[str, Any]) -> None:
    """Write results.json to `out`, where that is given."""
    if out is not None:
        write_results(out, merge(results))
        typer.echo(str(out / RESULTS))
