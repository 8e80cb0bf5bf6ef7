"""One of several, drawn by its probability.

Shapes: B rows, V choices.
"""

from __future__ import annotations

import torch
from torch import Tensor


def nucleus(log_p: Tensor, temperature: float, top_p: float) -> Tensor:
    """(B, V) -> (B, V): log p / temperature where a choice is among the likeliest that together have `top_p`, else -inf
    (Holtzman et al. 2019, arXiv:1904.09751)."""
    scaled = (log_p / temperature).log_softmax(-1)
    ordered, order = scaled.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()  # the probability of all likelier ones
    kept = torch.zeros_like(scaled, dtype=torch.bool).scatter(-1, order, before < top_p)
    return scaled.masked_fill(~kept, -torch.inf)


def choose(log_p: Tensor, u: Tensor) -> Tensor:
    """log_p (B, V) and u (B, V) uniform in (0, 1) -> (B,) int64, each drawn by its probability: Gumbel's maximum."""
    return (log_p - (-u.log()).log()).argmax(-1)
