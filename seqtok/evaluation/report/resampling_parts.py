"""What the report shows of resampling: redrawn pictures, and what stays against the number of tokens kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from seqtok.evaluation.report.charts import Curve, chart
from seqtok.evaluation.report.kept_pictures import ReportPictures
from seqtok.evaluation.report.report_parts import Chart
from seqtok.evaluation.report.report_tables import Table
from seqtok.evaluation.report.report_words import number, percent, spelled
from seqtok.grids import data_uri

Results = Mapping[str, Any]
_WAYS = {"model": "by the model", "swapped": "of another", "noise": "noise"}
_SHOWN = ("count", "shape", "color", "relation", "background", "everything")


def redrawn_rows(pictures: ReportPictures | None) -> list[dict[str, Any]]:
    """Per held-out picture: the original, and of each redrawing a row over the tokens kept, as data URIs."""
    if pictures is None or pictures.redrawn is None:
        return []
    pairs = zip(pictures.originals, pictures.redrawn, strict=True)
    return [{"original": data_uri(o), "redrawn": [[data_uri(p) for p in row] for row in own]} for o, own in pairs]


def resampling_charts(results: Results) -> list[Chart]:
    """Over the number of tokens kept, from 0 on."""
    found = results.get("resampling")
    if not found:
        return []
    model, chance, forced = found["model"]["attributes"], found["chance"]["attributes"], results.get("forced", {})
    attributes = [Curve(spelled(name), model[name], chance.get(name)) for name in _SHOWN if name in model]
    drawn = [
        ("What stays, drawn by the model", attributes, "%", "resampling"),
        ("Everything stays", _by_way(found, lambda own: own["attributes"]["everything"]), "%", "resampling"),
        ("PSNR to the original", _by_way(found, lambda own: own["psnr"]), "dB", "resampling"),
        ("Std over redrawings", _by_way(found, lambda own: own["std"]), "levels of 255", "resampling"),
        (
            "First tokens true, then free with the prompt",
            [Curve(spelled(name), forced[name]) for name in _SHOWN if name in forced],
            "%",
            "forced",
        ),
    ]
    return [
        Chart(title, Markup(svg), section)
        for title, curves, unit, section in drawn
        if (svg := chart(curves, unit, title, over="tokens kept"))
    ]


def _by_way(found: Results, take: Any) -> list[Curve]:
    return [Curve(how, take(found[way])) for way, how in _WAYS.items()]


def resampling_tables(results: Results) -> list[Table]:
    """Every number of the curves."""
    tables = []
    found = results.get("resampling", {})
    for way, how in _WAYS.items() if found else ():
        rows = [
            [_named(part, name), percent(found["chance"][part][name]), *map(percent, points.values())]
            for part in ("attributes", "labels")
            for name, points in found[way][part].items()
        ]
        rows.append(["PSNR (dB)", "", *(number(value, 2) for value in found[way]["psnr"].values())])
        rows.append(["std (levels of 255)", "", *(number(value, 2) for value in found[way]["std"].values())])
        head = ["", "chance", *(f"k = {k}" for k in found[way]["psnr"])]
        tables.append(Table(f"What stays of a picture: the rest {how} (%)", head, rows))
    if forced := results.get("forced"):
        rows = [[spelled(name), *map(percent, points.values())] for name, points in forced.items()]
        head = ["", *(f"m = {m}" for m in next(iter(forced.values())))]
        tables.append(Table("First tokens true, the rest drawn for the prompt: right (%)", head, rows))
    return tables


def _named(part: str, name: str) -> str:
    return spelled(name) if part == "attributes" else f"label {spelled(name)}"
