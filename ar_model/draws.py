"""A sample's own randomness: the same draw on any rank, in any batch, after any resume.

Shapes: B samples.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipelines.captions import PAD
from seqtok_core.layers import randomness


@dataclass(frozen=True)
class Draws:
    """Numbers named by a stream; `epoch` and `index` (B,) int64 say whose they are."""

    seed: int
    epoch: Tensor
    index: Tensor

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(B, *shape) float32 in (0, 1)."""
        return randomness.uniform(self.seed, stream, self.epoch, self.index, shape)

    def normal(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(B, *shape) float32, standard normal."""
        return randomness.normal(self.seed, stream, self.epoch, self.index, shape)


def of_rows(prompts: Sequence[Sequence[int]], seed: int, device: torch.device | None = None) -> Draws:
    """One row per prompt (token ids, PAD allowed), named by its ids and by how often they stood before it.

    So a prompt's sample does not depend on its neighbours, and a prompt given twice gives two samples.
    """
    seen: Counter[bytes] = Counter()
    index, epoch = [], []
    for prompt in prompts:
        digest = hashlib.sha256(repr([i for i in prompt if i != PAD]).encode()).digest()
        index.append(int.from_bytes(digest[:8], "little", signed=True))
        epoch.append(seen[digest])
        seen[digest] += 1
    int64 = torch.int64
    return Draws(seed, torch.tensor(epoch, dtype=int64, device=device), torch.tensor(index, dtype=int64, device=device))
