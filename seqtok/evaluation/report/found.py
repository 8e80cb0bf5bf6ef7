"""What a folder has to report: an evaluation's results, a demo's, or the curves of a training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqtok.evaluation.report.kept_pictures import ReportPictures, kept_pictures
from seqtok.evaluation.report.report import RESULTS, SCHEMA, read_results
from seqtok_core.foundation.errors import DataError

_REPORT = "report"  # of a demo's folder
_METRICS, _SCORES, _VALIDATION = "metrics.jsonl", "samples/scores.jsonl", "validation.jsonl"
_POINTS = 60  # of a curve
_CLOCK = ("step", "images", "seconds", "images_per_s", "data_wait", "mfu", "memory_gb", "skipped", "loss_scale")


def found_in(folder: Path) -> tuple[dict[str, Any], ReportPictures | None]:
    """Results and pictures of a folder with a results.json, of a demo, or of a training run. Raises DataError where
    there is none of them."""
    for place in (folder, folder / _REPORT):
        if (place / RESULTS).is_file():
            return read_results(place), kept_pictures(place)
    if (folder / _METRICS).is_file():
        return training_results(folder), None
    raise DataError(
        f"{folder}: holds no {RESULTS} of an evaluation (`--out {folder}` of `seqtok evaluate` writes one), no report "
        f"of a demo and no {_METRICS} of a training"
    )


def training_results(run: Path) -> dict[str, Any]:
    """{"training": {name: {images: value}}} of a run's metrics and of the scores of its samples; means over equal
    parts where it has more lines than a curve has points."""
    sources = (("", _METRICS), ("", _SCORES), ("held-out ", _VALIDATION))
    rows = [(before, row) for before, name in sources for row in _rows(run / name)]
    curves: dict[str, dict[int, float]] = {}
    for before, row in rows:
        for name, value in row.items():
            if name not in _CLOCK and isinstance(value, int | float):
                curves.setdefault(before + name, {})[int(row["images"])] = float(value)
    if not curves:
        raise DataError(f"{run / _METRICS}: no line of a training yet")
    last = max(int(row["images"]) for _, row in rows)
    about = {"run": str(run), "images": f"{last:,}", "lines": f"{len(rows):,}"}
    training = {name: _thinned(points) for name, points in curves.items()}
    return {"schema": SCHEMA, "title": run.resolve().name, "about": about, "training": training}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Lines that can be read; a run that goes on may be in the middle of the last one."""
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("images"), int):
            yield row


def _thinned(points: dict[int, float]) -> dict[str, float]:
    places = sorted(points)
    size = -(-len(places) // _POINTS)
    parts = [places[first : first + size] for first in range(0, len(places), size)]
    return {str(part[-1]): sum(points[place] for place in part) / len(part) for part in parts}
