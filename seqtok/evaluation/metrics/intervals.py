"""Intervals by resampling: how far a number would move had other pictures been asked (Efron 1979).

Shapes: N pictures.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_RESAMPLES = 1000


def mean_of_means(values: Tensor) -> float:
    """values (N, J), nan where a picture has no such quantity -> the mean over J quantities of their means over
    pictures."""
    return float(values.nanmean(0).nanmean())


def bootstrap_interval(
    values: Tensor,
    statistic: Callable[[Tensor], float] | None = None,
    *,
    level: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """values (N, …), one row per independent picture -> the middle `level` of what `statistic` (the mean over rows)
    says of N rows drawn with replacement. A function of the values and the seed.

    Rows that belong together (drawings of one picture, characters of one page) must be one row. Where all rows are
    equal the interval is a point: it knows nothing of what was not seen. Raises ValueError for no rows.
    """
    if not len(values):
        raise ValueError("an interval needs at least one picture")
    generator = torch.Generator().manual_seed(seed)
    values = values.double() if statistic is None else values
    found = torch.empty(resamples, dtype=torch.float64)
    for i in range(resamples):
        drawn = values[torch.randint(len(values), (len(values),), generator=generator)]
        found[i] = drawn.mean() if statistic is None else statistic(drawn)
    tail = (1 - level) / 2
    low, high = torch.quantile(found, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
