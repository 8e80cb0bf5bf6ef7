"""Does the order of tokens agree with the order in which people speak? (docs/method.md, "The judge")

A level (what a caption of that fineness says) is *reached* by the shortest prefix from which 90 % of what the whole
sequence tells of it, above chance, can be read. An order agrees with people where coarser levels are reached strictly
earlier; levels reached together are ties, which are no order and count apart.
Shapes: L levels from coarse to fine, P prefix lengths, N pictures, R resamplings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log2
from typing import Any

import torch
from torch import Tensor

from seqtok.evaluation.metrics.ordering import kendall_tau_b, prefix_area

REACHED = 0.9  # of what all tokens tell above chance
_TOLD = 0.02  # above chance: a level of which all tokens tell less is not told at all
_DRAWS = 1000
_EXACT = 1e-9  # what sums of shares err by


@dataclass(frozen=True)
class Concordance:
    """Shares of pairs of levels. `gap`: the mean of log2(k_finer / k_coarser), None without a pair."""

    strict: float | None  # the coarser is reached strictly first
    ties: float | None
    against: float | None  # the finer is reached strictly first
    gap: float | None
    pairs: int


def reached(points: Mapping[int, float], chance: float) -> int | None:
    """k -> accuracy: the shortest prefix that tells REACHED of what the longest does; None where that is nothing."""
    told = points[max(points)] - chance
    if told < _TOLD:
        return None
    return min(k for k, value in points.items() if value - chance >= REACHED * told - _EXACT)


def concordance(lengths: Sequence[int | None]) -> Concordance:
    """The prefix that reaches each level, coarse to fine. Levels that are never told make no pair."""
    told = [length for length in lengths if length is not None]
    pairs = list(combinations(told, 2))
    if not pairs:
        return Concordance(None, None, None, None, 0)
    count = len(pairs)
    return Concordance(
        strict=sum(a < b for a, b in pairs) / count,
        ties=sum(a == b for a, b in pairs) / count,
        against=sum(a > b for a, b in pairs) / count,
        gap=sum(log2(b / a) for a, b in pairs) / count,
        pairs=count,
    )


def area(points: Mapping[int, float], chance: float, best: float) -> float:
    """Under accuracy against log2 k, by trapezoids, with `chance` as 0 and `best`, what the best contestant's whole
    sequence tells, as 1. A level that is told by the first token as by any sequence has 1. nan: nobody tells it."""
    if best - chance < _TOLD:
        return float("nan")
    return prefix_area({str(k): value for k, value in points.items()}, chance, best)


def judge_order(
    hits: Mapping[str, Tensor], lengths: Sequence[int], chance: Mapping[str, float], seed: int
) -> dict[str, Any]:
    """hits: level, coarse to fine -> (P, N) share of the level's labels that are read right, nan where a picture has
    none -> the accuracies, what reaches each level, and the concordance with 95 % intervals over the pictures."""
    accuracy = {level: _points(own.nanmean(1), lengths) for level, own in hits.items()}
    reach = {level: reached(points, chance[level]) for level, points in accuracy.items()}
    found = concordance(list(reach.values()))
    draws = [_of_means(means, lengths, chance) for means in _resampled(hits, seed)]
    names = ("strict", "ties", "against", "gap")
    values = {name: [v for draw in draws if (v := getattr(draw, name)) is not None] for name in names}
    return {
        "accuracy": {level: {str(k): value for k, value in points.items()} for level, points in accuracy.items()},
        "chance": dict(chance),
        "reached": reach,
        **{name: {"value": getattr(found, name), **_interval(values[name])} for name in names},
        "tau_b": _tau_b(list(reach.values())),
        "pairs": found.pairs,
    }


def _tau_b(lengths: Sequence[int | None]) -> float | None:
    """Kendall's correlation between fineness and length, of the levels that are told."""
    told = [(place, length) for place, length in enumerate(lengths) if length is not None]
    return kendall_tau_b([place for place, _ in told], [length for _, length in told]) if len(told) > 1 else None


def _of_means(means: Mapping[str, Tensor], lengths: Sequence[int], chance: Mapping[str, float]) -> Concordance:
    return concordance([reached(_points(own, lengths), chance[level]) for level, own in means.items()])


def _resampled(hits: Mapping[str, Tensor], seed: int) -> list[dict[str, Tensor]]:
    """_DRAWS times level -> (P,), the means over pictures drawn with replacement, the same ones for all levels."""
    count = next(iter(hits.values())).shape[1]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (_DRAWS, count), generator=generator)
    times = torch.zeros(_DRAWS, count).scatter_add_(1, drawn, torch.ones(drawn.shape))
    means = {
        level: (times @ own.nan_to_num(0.0).T.float()) / (times @ (~own.isnan()).T.float()).clamp(min=1)
        for level, own in hits.items()
    }
    return [{level: own[row] for level, own in means.items()} for row in range(_DRAWS)]


def _points(means: Tensor, lengths: Sequence[int]) -> dict[int, float]:
    return dict(zip(lengths, means.tolist(), strict=True))


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"low": None, "high": None}
    low, high = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return {"low": float(low), "high": float(high)}
