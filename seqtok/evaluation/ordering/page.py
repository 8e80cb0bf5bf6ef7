"""A suite as files: ordering.json and ordering.csv with every figure, a page, and its plots for a paper."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from seqtok.evaluation.ordering.conclusions import LEARNED, conclusions
from seqtok.evaluation.ordering.table import Column, Figure, Row, Summary
from seqtok.evaluation.report.charts import Curve, chart, printed
from seqtok.evaluation.report.kept_pictures import kept_pictures
from seqtok.grids import data_uri
from seqtok_core.foundation.files import atomic_write

PAGE, TABLE, CSV = "ordering.html", "ordering.json", "ordering.csv"
_DRAWN = 6  # curves of one chart
_BARE = "–"
_Plot = tuple[list[Curve], str, str]  # curves, unit, title


def write_page(folder: Path, summary: Summary, rows: Sequence[Row]) -> Path:
    """-> the page's path. The learned order stands first, the others as they are given."""
    rows = sorted(rows, key=lambda row: row.name != LEARNED)
    plots = _plots(rows)
    pages = {name: svg for name, (curves, unit, title) in plots.items() if (svg := chart(curves, unit, title))}
    with atomic_write(folder / TABLE, "w") as stream:
        json.dump(suite_as_json(summary, rows), stream, indent=1, ensure_ascii=False)
        stream.write("\n")
    with atomic_write(folder / CSV, "w") as stream:
        stream.write(_as_csv(summary, rows))
    for name, (curves, unit, title) in plots.items():
        for kind, drawn in printed(curves, unit, title).items():
            with atomic_write(folder / "plots" / f"{name}.{kind}") as file:
                file.write(drawn)
    with atomic_write(folder / PAGE, "w") as stream:
        titles = {name: title for name, (_, _, title) in plots.items()}
        stream.write(_render(folder, summary, rows, pages, titles))
    return folder / PAGE


def suite_as_json(summary: Summary, rows: Sequence[Row]) -> dict[str, Any]:
    """What `ordering.json` holds: settings of the judge, contestants, their figures, what these allow to be said, and
    all results of every seed."""
    figures = {
        key: {name: {"mean": value.mean, "half": value.half, "seeds": value.seeds} for name, value in by_name.items()}
        for key, by_name in summary.figures.items()
    }
    about = {row.name: {"says": row.says, "taught": row.taught, **_costs(row)} for row in rows}
    each = {row.name: {str(run["seed"]): dict(run) for run in row.runs} for row in rows}
    return {
        "judge": summary.judge,
        "contestants": about,
        "figures": figures,
        "conclusions": _said(summary, rows),
        "runs": each,
    }


def _said(summary: Summary, rows: Sequence[Row]) -> list[str]:
    return conclusions(rows, summary) if rows else ["Nothing is judged yet."]


def _costs(row: Row) -> dict[str, Any]:
    run = row.runs[0]
    return {key: run[key] for key in ("cost", "trained", "training_flops") if key in run}


def _as_csv(summary: Summary, rows: Sequence[Row]) -> str:
    """A line per contestant and figure."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["contestant", "figure", "mean", "half_of_interval", "seeds"])
    for key, by_name in summary.figures.items():
        for row in rows:
            if (value := by_name.get(row.name)) is not None:
                writer.writerow([row.name, key, value.mean, "" if value.half is None else value.half, value.seeds])
    return stream.getvalue()


def _plots(rows: Sequence[Row]) -> dict[str, _Plot]:
    """By name: PSNR, probes by prefix of each level, and what drawn prefixes show; of many contestants the same again
    with the next ones, each time beside the learned order."""
    found: dict[str, _Plot] = {}
    lead = [row for row in rows if row.name == LEARNED]
    others, few = [row for row in rows if row.name != LEARNED], _DRAWN - len(lead)
    for start in range(0, max(len(others), len(lead)), few):
        more = "" if not start else f"_{1 + start // few}"
        own = _plots_of([*lead, *others[start : start + few]])
        found |= {f"{name}{more}": plot for name, plot in own.items()}
    return found


def _plots_of(rows: Sequence[Row]) -> dict[str, _Plot]:
    first = rows[0].runs[0]
    found: dict[str, _Plot] = {"psnr": ([Curve(row.name, _means(row, "psnr")) for row in rows], "dB", "PSNR")}
    for level in first.get("order", {}).get("accuracy", {}):
        chance = first["order"]["chance"][level]
        curves = [Curve(row.name, _means(row, "order", "accuracy", level), chance) for row in rows]
        found[f"probe_{level}"] = curves, "%", f"{level}, read by a linear probe"
        drawn = [Curve(row.name, _means(row, "prefix_truth", "levels", level, "value")) for row in rows]
        found[f"truth_{level}"] = drawn, "%", f"{level}, in pictures drawn from k tokens"
    return found


def _means(row: Row, *path: str) -> dict[str, float | None]:
    """k -> mean over seeds."""
    runs = []
    for run in row.runs:
        found: Any = run
        for key in path:
            found = found.get(key, {}) if isinstance(found, Mapping) else {}
        runs.append(found)
    return {k: fmean(run[k] for run in runs) for k in runs[0] if all(k in run for run in runs)}


def _render(
    folder: Path,
    summary: Summary,
    rows: Sequence[Row],
    plots: Mapping[str, str],
    titles: Mapping[str, str],
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader([here, here.parent / "report"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("ordering.html.j2").render(
        conclusions=_said(summary, rows),
        rows=rows,
        columns=summary.columns,
        cells={key: _cells(by_name, summary.columns[key], rows) for key, by_name in summary.figures.items()},
        plots={name: Markup(svg) for name, svg in plots.items()},
        titles=titles,
        strips=_strips(folder, rows),
        judge=summary.judge,
    )


def _cells(by_name: Mapping[str, Figure], column: Column, rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """One a contestant: its text, and whether it is the best."""
    best = max((column.better * value.mean for value in by_name.values()), default=0.0)
    scale, digits = (100, 1) if column.unit == "%" else (1, 2)
    found = []
    for row in rows:
        value = by_name.get(row.name)
        if value is None:
            found.append((_BARE, False))
            continue
        half = "" if value.half is None else f" ± {scale * value.half:.{digits}f}"
        found.append((f"{scale * value.mean:.{digits}f}{half}", column.better * value.mean == best))
    return found


def _strips(folder: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of each contestant's first seed the same held-out picture, decoded and drawn from growing prefixes."""
    found = []
    for row in rows:
        pictures = kept_pictures(folder / f"{row.name}-{row.runs[0]['seed']}")
        if pictures is None:
            continue
        lines = [[data_uri(picture) for picture in pictures.rebuilt[0]]]
        if pictures.drawn is not None:
            lines += [[data_uri(picture) for picture in drawing] for drawing in pictures.drawn[0]]
        found.append(
            {
                "name": row.name,
                "prefixes": list(pictures.prefixes),
                "lines": lines,
                "original": data_uri(pictures.originals[0]),
            }
        )
    return found
