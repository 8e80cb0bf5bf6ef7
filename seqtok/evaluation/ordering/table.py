"""The figures of a suite: of each contestant the mean over seeds, with an interval where there are several.

Intervals are Student's, 95 %, over seeds: whole trainings that begin with other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, sqrt
from statistics import fmean, stdev
from typing import Any

from seqtok.evaluation.ordering.concordance import area

Results = Mapping[str, Any]
# Cells of a grid, in an order that no training moves.
FIXED = ("raster", "column_major", "spiral_out", "z_order", "corner_distance", "random")
# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Row:
    """A contestant and its results.json files, one a seed."""

    name: str
    says: str
    taught: bool  # by captions
    runs: Sequence[Results]


@dataclass(frozen=True)
class Figure:
    """`half`: of the interval; None for a single seed."""

    mean: float
    half: float | None
    seeds: int

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0.0)


@dataclass(frozen=True)
class Column:
    """`unit`: "%" for shares. `better`: +1 where more is better, -1 where less is."""

    title: str
    unit: str
    better: int
    of: Callable[[Results], float | None]


@dataclass(frozen=True)
class Summary:
    """`figures`: column -> contestant -> figure, without those that have none. `judge`: settings of the judgement."""

    columns: Mapping[str, Column]
    figures: Mapping[str, Mapping[str, Figure]]
    judge: Mapping[str, Any]


def summarise_suite(rows: Sequence[Row], judge: Mapping[str, Any]) -> Summary:
    """Means over seeds of every column that any contestant has a value of."""
    columns = _columns(rows)
    figures: dict[str, dict[str, Figure]] = {}
    for key, column in columns.items():
        for row in rows:
            values = [value for run in row.runs if (value := column.of(run)) is not None and not isnan(value)]
            if values:
                figures.setdefault(key, {})[row.name] = figure(values)
    return Summary({key: columns[key] for key in figures}, figures, judge)


def figure(values: Sequence[float]) -> Figure:
    count = len(values)
    half = None if count < 2 else _T[min(count - 2, len(_T) - 1)] * stdev(values) / sqrt(count)
    return Figure(fmean(values), half, count)


def _columns(rows: Sequence[Row]) -> dict[str, Column]:
    """Levels and lengths are those of the first contestant's first seed: they are the same for all."""
    first = rows[0].runs[0] if rows else {}
    levels = list(first.get("order", {}).get("accuracy", {}))
    lengths = list(first.get("psnr", {}))
    best = {level: max(_last(run["order"]["accuracy"][level]) for row in rows for run in row.runs) for level in levels}
    found = {
        "strict": Column("strict concordance", "", 1, lambda run: run["order"]["strict"]["value"]),
        "gap": Column("gap, octaves", "", 1, lambda run: run["order"]["gap"]["value"]),
        "tau_b": Column("Kendall's τ-b", "", 1, _value("order", "tau_b")),
        "ties": Column("ties", "", -1, lambda run: run["order"]["ties"]["value"]),
    }
    for level in levels:
        found[f"area_{level}"] = Column(f"area, {level}", "", 1, _area_of(level, best[level]))
    if lengths:
        for k in (lengths[0], lengths[-1]):
            found[f"psnr_{k}"] = Column(f"PSNR k = {k}, dB", "", 1, _value("psnr", k))
    for level in levels:
        for k in (lengths[0], lengths[-1]):
            found[f"probe_{level}_{k}"] = Column(f"{level}, k = {k}", "%", 1, _value("order", "accuracy", level, k))
    for level in levels:
        for kind, words in (("linear", "linear, early"), ("hidden", "one hidden layer")):
            told = _value("early", lengths[-1], level, kind, "value")
            found[f"{kind}_{level}"] = Column(f"{level}, k = {lengths[-1]}, {words}", "%", 1, told)
    found["states"] = Column("read from hidden states, mean of levels", "%", 1, _states_of(levels))
    for level in levels:
        found[f"states_{level}"] = Column(
            f"{level}, of hidden states", "%", 1, _value("understanding", "levels", level, "states_mean", "value")
        )
    for how, words in (("reader", "guided"), ("reader_unguided", "unguided")):
        found[how] = Column(f"all right, {words}", "%", 1, _value(how, "everything", "value"))
        found[f"{how}_unseen"] = Column(f"unseen, {words}", "%", 1, _value(how, "everything", "unseen"))
    for how in ("guided", "unguided"):
        found[f"frechet_{how}"] = Column(f"Fréchet, {how}", "", -1, _value("frechet", how))
        told = _value("frechet", "infinity_of_pairs", how)
        found[f"frechet_infinity_{how}"] = Column(f"Fréchet at ∞, {how}", "", -1, told)
        for what in ("precision", "recall"):
            found[f"{what}_{how}"] = Column(f"{what}, {how}", "%", 1, _value("manifold", how, what))
    for network in {name: None for row in rows for run in row.runs for name in run.get("networks", {})}:
        for how in ("guided", "unguided"):
            told = _value("networks", network, "frechet", how)
            found[f"frechet_{network}_{how}"] = Column(f"Fréchet by {network}, {how}", "", -1, told)
    for level in levels:
        k = lengths[0]
        found[f"truth_{level}"] = Column(
            f"drawn from k = {k}: {level}", "%", 1, _value("prefix_truth", "levels", level, "value", k)
        )
    return found


def _area_of(level: str, best: float) -> Callable[[Results], float | None]:
    def of(run: Results) -> float | None:
        points = {int(k): value for k, value in run["order"]["accuracy"][level].items()}
        return area(points, run["order"]["chance"][level], best)

    return of


def _states_of(levels: Sequence[str]) -> Callable[[Results], float | None]:
    def of(run: Results) -> float | None:
        values = [_value("understanding", "levels", level, "states_mean", "value")(run) for level in levels]
        told = [value for value in values if value is not None]
        return fmean(told) if told else None

    return of


def _value(*path: str) -> Callable[[Results], float | None]:
    def of(run: Results) -> float | None:
        found: Any = run
        for key in path:
            if not isinstance(found, Mapping) or key not in found:
                return None
            found = found[key]
        return None if found is None else float(found)

    return of


def _last(points: Mapping[str, float]) -> float:
    return points[max(points, key=int)]
