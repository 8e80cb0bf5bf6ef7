"""Numbers about orders: whether two rankings agree, and how early along the prefixes something is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's rank correlation with ties (1945): 1 the same order, -1 the reverse, 0 none; None where all values of
    one side are equal, so that there is no order. Raises ValueError for lists of different lengths."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values: an order is compared of the same things")
    signs = [torch.tensor(values, dtype=torch.float64) for values in (first, second)]
    one, other = ((values[:, None] - values[None]).sign() for values in signs)
    ordered = float(one.square().sum() * other.square().sum())  # pairs without a tie in each, each pair twice
    return float((one * other).sum()) / math.sqrt(ordered) if ordered else None


def prefix_area(points: Mapping[str, float], chance: float, best: float) -> float:
    """k (as text) -> accuracy; `chance` counts as 0 and `best`, of all contestants, as 1 -> the area under the curve
    over log2 k, divided by its width: 1 where the first token already says all, 0 where the whole says nothing.

    Trapezoids between the prefixes that were measured. Raises ValueError for fewer than two of them, or where `best` is
    not above chance.
    """
    if best <= chance:
        raise ValueError(f"best={best} is not above chance={chance}: nothing to be known")
    curve = sorted((math.log2(int(k)), (value - chance) / (best - chance)) for k, value in points.items())
    if len(curve) < 2:
        raise ValueError("an area needs at least two prefix lengths")
    heights = torch.tensor([height for _, height in curve], dtype=torch.float64)
    places = torch.tensor([place for place, _ in curve], dtype=torch.float64)
    return float(torch.trapezoid(heights, places) / (places[-1] - places[0]))
