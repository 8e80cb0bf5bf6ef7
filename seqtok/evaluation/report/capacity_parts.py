"""Of a tokenizer's capacity what the report shows: a curve over the number of glyphs, and every number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from seqtok.evaluation.report.charts import Curve, chart
from seqtok.evaluation.report.report_parts import Chart
from seqtok.evaluation.report.report_tables import Table
from seqtok.evaluation.report.report_words import percent

_WAYS = {"encoded": "as encoded", "noisy": "with its noise"}


def capacity_charts(runs: Mapping[str, Mapping[str, Any]]) -> list[Chart]:
    """Characters that are read against their number, of every run that was judged; of a single one with its ceiling."""
    judged = {name: results["capacity"]["ways"] for name, results in runs.items() if "capacity" in results}
    if not judged:
        return []
    curves = []
    for name, ways in judged.items():
        for way, rows in ways.items():
            label = _WAYS[way] if len(judged) == 1 else name
            chance = next(iter(rows.values()))["chance"]
            if len(judged) == 1 or way == "encoded":
                curves.append(Curve(label, {n: row["value"] for n, row in rows.items()}, chance))
    if len(judged) == 1:
        rows = next(iter(judged.values()))["encoded"]
        curves.append(Curve("real pages", {n: row["ceiling"] for n, row in rows.items()}))
    title = "Characters of a page that are read back"
    return [Chart(title, Markup(chart(curves, "%", title, over="characters on the page")), "capacity")]


def capacity_tables(results: Mapping[str, Any]) -> list[Table]:
    """Every way through the code of one run."""
    section = results.get("capacity")
    if section is None:
        return []
    bits = section["code_bits"]
    code = section["code_bits_are"] if bits is None else f"{bits:.1f} bits, {section['code_bits_are']}"
    head = ["characters", "read (%)", "interval", "chance", "ceiling", "invented", "pages right", "bits drawn"]
    readers = {"": section["ways"], ", by a published reader": section.get("published", {})}
    return [
        Table(
            f"Characters read back, {_WAYS[way]}{by}; {section['tokens']} tokens: {code}",
            [*head, "bits read", "interval"],
            [[n, *_cells(row)] for n, row in rows.items()],
        )
        for by, ways in readers.items()
        for way, rows in ways.items()
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    shares = [percent(row[name]) for name in ("chance", "ceiling", "invented", "pages_right")]
    interval = f"{percent(row['low'])}–{percent(row['high'])}"
    bits = [f"{row['bits_drawn']:.1f}", f"{row['bits']:.1f}", f"{row['bits_low']:.1f}–{row['bits_high']:.1f}"]
    return [percent(row["value"]), interval, *shares, *bits]
