"""What a prefix of latents says, as one vector in the space of the text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PrefixReadout(nn.Module):
    """Embeddings of all prefixes in one pass: a running sum of per-position maps, then a small residual MLP.

    The linear path keeps early latents linearly readable; the MLP sees sums over the prefix only, so it is causal.
    """

    MUON_EXCLUDED = ("start",)

    def __init__(self, length: int, dim: int, embed_dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.randn(length, dim, embed_dim) * dim**-0.5)
        self.lift = nn.Parameter(torch.randn(length, dim, hidden) * dim**-0.5)
        self.start = nn.Parameter(torch.zeros(length, hidden))
        self.norm = nn.LayerNorm(hidden, bias=False)
        last = nn.Linear(hidden, embed_dim)
        nn.init.zeros_(last.weight)
        self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), last)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, k, D) -> (B, k, E) of unit norm; entry i speaks of latents 0..i."""
        k = latents.shape[1]
        plain = torch.einsum("bkd,kde->bke", latents, self.linear[:k]).cumsum(1)
        lifted = (torch.einsum("bkd,kdh->bkh", latents, self.lift[:k]) + self.start[:k]).cumsum(1)
        return F.normalize(plain + self.mlp(self.norm(lifted)), dim=-1)
