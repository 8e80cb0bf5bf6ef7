"""What the report shows of understanding: probes of hidden states beside those of latents, and likeliest captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from seqtok.evaluation.report.charts import Curve, chart
from seqtok.evaluation.report.report_parts import Chart
from seqtok.evaluation.report.report_tables import Table
from seqtok.evaluation.report.report_words import percent, spelled

Results = Mapping[str, Any]


def understanding_tables(results: Results) -> list[Table]:
    """By level, and which caption is the likeliest: what stands in the open."""
    tables = _probe_tables(results, "levels")
    if found := results.get("zero_shot"):
        rows = [
            [spelled(name), percent(row["chance"]), _with_interval(row), str(row["candidates"]), str(row["pictures"])]
            for name, row in found.items()
        ]
        head = ["level", "chance", "right", "captions", "pictures"]
        tables.append(Table("The likeliest of a level's captions (%)", head, rows, "zero_shot"))
    return tables


def label_tables(results: Results) -> list[Table]:
    """By label, with the block that was chosen; what was left out, with the reason."""
    tables = _probe_tables(results, "labels")
    if left_out := results.get("understanding", {}).get("left_out"):
        rows = [[spelled(name), why] for name, why in left_out.items()]
        tables.append(Table("Left out of understanding", ["", "because"], rows))
    return tables


def block_charts(results: Results) -> list[Chart]:
    """Probes after each block, on the pictures that the block is chosen on."""
    levels = results.get("understanding", {}).get("by_layer", {}).get("states_mean", {})
    title = "Linear probe accuracy after each block"
    svg = chart([Curve(spelled(name), points) for name, points in levels.items()], "%", title, over="block")
    return [Chart(title, Markup(svg), "understanding_by_block")] if svg else []


def _probe_tables(results: Results, part: str) -> list[Table]:
    found = results.get("understanding", {}).get(part)
    if not found:
        return []
    sources = [name for name in next(iter(found.values())) if name != "chance"]
    rows = [
        [spelled(name), percent(row["chance"]), *(_with_interval(row[source]) for source in sources)]
        for name, row in found.items()
    ]
    head = [part[:-1], "chance", *map(spelled, sources)]
    return [Table(f"Linear probes of states and latents, by {part[:-1]} (%)", head, rows, "understanding")]


def _with_interval(cell: Mapping[str, Any]) -> str:
    shown = f"{percent(cell['value'])} ({percent(cell['low'])}–{percent(cell['high'])})"
    return f"{shown}, block {cell['layer']}" if "layer" in cell else shown
