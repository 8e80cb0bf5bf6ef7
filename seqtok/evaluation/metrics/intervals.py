"""How sure a mean over pictures is, by the bootstrap (Efron 1979): pictures are drawn anew with replacement.

Shapes: N pictures, J quantities.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DRAWS = 1000
_TAIL = 0.025  # at either end of a 95 % interval


def mean_of_means(values: Tensor) -> float:
    """values (N, J), nan where a picture has no such quantity -> the mean over quantities of their means over
    pictures."""
    return float(values.nanmean(0).nanmean())


def bootstrap_interval(values: Tensor, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of `mean_of_means`; what a picture has of all quantities is drawn together."""
    draws, count = torch.Generator().manual_seed(seed), len(values)
    found = [mean_of_means(values[torch.randint(count, (count,), generator=draws)]) for _ in range(_DRAWS)]
    low, high = torch.tensor(found, dtype=torch.float64).nanquantile(torch.tensor([_TAIL, 1 - _TAIL]).double()).tolist()
    return low, high
