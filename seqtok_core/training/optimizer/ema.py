"""Exponential moving average of the weights, warmed up.

The average lives in the optimizer's state beside the momenta: it is cut over the processes as they are, it is
saved and resumed with them, and it needs no communication at any ZeRO stage. (The usual way through
`safe_get_full_fp32_param` gathers every weight in every step, and is silently empty at stage 0.)
"""

from __future__ import annotations

import torch
from torch import Tensor

WARMUP = 10.0  # updates until the average spans about half of what has been seen


def decay_at(updates: int, decay: float) -> float:
    """Decay of update number `updates` (0 for the first, which copies the weights), at most `decay`.

    updates / (WARMUP + updates) is the warm-up of many EMA implementations; by its end the average has
    forgotten the initial weights, which a constant decay remembers for thousands of steps.
    """
    return min(decay, updates / (WARMUP + updates))


def update(averages: list[Tensor], weights: list[Tensor], decay: float) -> None:
    """averages <- decay * averages + (1 - decay) * weights, in place; equal shapes, fp32."""
    if averages:
        torch._foreach_lerp_(averages, weights, 1.0 - decay)
