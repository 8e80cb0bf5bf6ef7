"""Which quoting a CSV file was written with, by what it shows.

A writer that quotes puts a cell with a divider, a quote or a line end in quotes and doubles the quotes inside. One that
does not (CC3M, CC12M, token files) writes a caption that begins with a quote as it is; read as quoting, the quote
swallows the rows up to the next one. That shows: the lines of such a row look like rows themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from data_pipelines.sources.tables.csv_form import Quoting
from data_pipelines.sources.tables.csv_scan import MOST, CsvScan, LongRow, QuoteTraces, kind_of_cell
from seqtok_core.foundation.errors import DataError

_FEW = 0.01  # share of ragged lines that a table without quoting may have
WAY_OUT = "say how it is written with `quoting`: none (a quote is a character), minimal or backslash; or mend that row"
Verdict = Literal["rows", "text", "doubtful"]


def choose_quoting(path: Path, divider: str, scan: Callable[[Quoting], CsvScan]) -> tuple[Quoting, CsvScan]:
    """`scan` reads the file in one form. Raises DataError, with the row, where the file shows neither clearly."""
    plain = scan("minimal")
    traces = plain.traces
    # Who quotes the names of columns quotes cells: lines inside a cell may look like anything.
    judged = [] if traces.quoted_header else [(row, _judge(row, traces, divider)) for row in traces.long]
    swallowed = [row.number for row, verdict in judged if verdict == "rows"]
    doubtful = [row.number for row, verdict in judged if verdict == "doubtful"]
    if traces.escaped and not traces.bare and not (traces.doubled and _reads_well(traces, divider)):
        escaped = scan("backslash")
        if _reads_well(escaped.traces, divider) and escaped.traces.ragged <= traces.ragged:
            return "backslash", escaped
    lines = len(judged) - len(swallowed) - len(doubtful)  # rows over several lines that are clearly text
    quotes = bool(traces.quoted_header or traces.proper or lines or traces.wrapped)
    doubtful = [] if quotes else doubtful
    if not (swallowed or doubtful or traces.broken):
        return "minimal", plain
    if not quotes and not doubtful:
        raw = scan("none")
        if raw.traces.ragged <= max(traces.ragged, _FEW * raw.traces.rows):
            return "none", raw
    rows = sorted([*swallowed, *doubtful, *([traces.endless] if traces.endless else [])])
    if rows:
        ends = "nowhere" if rows[0] == traces.endless else "in a later line, and the lines between look like rows"
        why = "though other rows are quoted" if quotes else "and nothing else tells how quotes are meant"
        raise DataError(f'{path}: the quote (") that row {rows[0]} opens ends {ends}, {why}; {WAY_OUT}')
    return "minimal", plain  # rows that it cannot read are named when they are read


def _reads_well(traces: QuoteTraces, divider: str) -> bool:
    return not traces.broken and all(_judge(row, traces, divider) != "rows" for row in traces.long)


def _judge(row: LongRow, traces: QuoteTraces, divider: str) -> Verdict:
    """Whether the lines of a row over several lines are rows that a quote has swallowed, or text of a cell."""
    kinds = {n: seen.most_common(1)[0] for n, seen in enumerate(traces.kinds) if seen}
    known = {n: kind for n, (kind, count) in kinds.items() if kind != "text" and count > MOST * traces.kinds[n].total()}
    like = [_like_a_row(line.split(divider), known, len(traces.kinds)) for line in row.lines[1:]]
    if not any(like):
        return "text"
    return "rows" if known and 2 * sum(like) >= len(like) else "doubtful"


def _like_a_row(cells: Sequence[str], known: dict[int, str], columns: int) -> bool:
    return len(cells) == columns and all(kind_of_cell(cells[n]) == kind for n, kind in known.items())
