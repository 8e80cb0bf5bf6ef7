"""Rows of all ranks together, and sums over them, with gradients that are right once they are averaged over ranks.

Without a process group, or in a group of one, both hand back what they were given.
Shapes: B rows of this rank, N rows of all ranks, rank by rank; all ranks have equally many.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

_ALONE = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this rank is the only one: what it computes while the others wait asks nothing of them."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def ranks() -> int:
    """How many processes train together."""
    if _ALONE.get():
        return 1
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rows_of_all_ranks(x: Tensor) -> Tensor:
    """(B, ...) -> (N, ...). Numbers with a gradient send it back to the rank that they came from."""
    if ranks() == 1:
        return x
    if x.requires_grad:
        from torch.distributed.nn import all_gather

        return torch.cat(all_gather(x))
    parts = [torch.empty_like(x) for _ in range(ranks())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def sum_of_all_ranks(share: Tensor) -> Tensor:
    """Each rank's part of a sum -> the sum. The gradient is this rank's part, times their number: what an average over
    ranks divides by."""
    if ranks() == 1:
        return share
    total = share.detach().clone()
    dist.all_reduce(total)
    part = ranks() * share
    return total + (part - part.detach())
