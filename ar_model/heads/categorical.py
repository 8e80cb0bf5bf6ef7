"""Which entry of a codebook comes next: softmax over its V entries, for the latents of discrete tokenizers.

A latent that is a sum of Q > 1 entries (residual quantisation) has one softmax after the other, each told the sum so
far (RQ-Transformer, Lee et al. 2022, arXiv:2203.01941, with an MLP in place of its second Transformer).
Latents in, latents out, as every head: codes are found as the nearest entries, which latents of the tokenizer are.

Shapes: B samples, K latents of D channels, W width of the Transformer, C width of the head, V entries, Q of a latent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ar_model.heads.base import Sampler, stream
from ar_model.heads.direct import DirectHead, DirectHeadConfig
from seq_tokenizer.latents import LatentSpec
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError, MismatchError
from seqtok_core.layers.choice import choose, nucleus
from seqtok_core.layers.flow import guide
from seqtok_core.layers.randomness import Draws

_AT_ONCE = 1 << 24  # distances to entries that are held at once


class CategoricalHeadConfig(DirectHeadConfig):
    """The next code, of a tokenizer with a codebook."""

    kind: Literal["categorical"] = "categorical"


class CategoricalSampleConfig(Config):
    """From which entries is drawn."""

    top_p: float = Field(1.0, gt=0, le=1)  # from the likeliest that together have this much of the probability


class CategoricalHead(DirectHead):
    table: Tensor
    mean: Tensor
    std: Tensor
    kind = "categorical"
    MUON_EXCLUDED = (*DirectHead.MUON_EXCLUDED, "so_far.weight", "which.weight")

    def __init__(self, config: CategoricalHeadConfig, width: int, spec: LatentSpec) -> None:
        if spec.codebook_size is None:
            raise ConfigError("head.kind=categorical: these latents come of a tokenizer without a codebook; take flow")
        self.entries, self.parts = spec.codebook_size, spec.codes_per_token
        super().__init__(config, width, spec.dim, self.entries)
        self.so_far = nn.Linear(spec.dim, width, bias=False) if self.parts > 1 else None
        self.which = nn.Embedding(self.parts, width) if self.parts > 1 else None
        self.register_buffer("table", torch.zeros(self.parts, self.entries, spec.dim))
        self.register_buffer("mean", spec.mean.clone(), persistent=False)
        self.register_buffer("std", spec.std.clone(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to`, `half`, `cuda` do; entries and statistics stay float32, as latents are."""
        kept = {name: getattr(self, name) for name in ("table", "mean", "std")}
        super()._apply(fn, recurse)
        for name, tensor in kept.items():
            moved = getattr(self, name)
            if moved.dtype != tensor.dtype and not tensor.is_meta:
                setattr(self, name, tensor.to(moved.device))
        return self

    def take_codebook(self, table: Tensor) -> None:
        """table (Q, V, D): the entries, as the tokenizer's `codebook` hands them out. Before the first training."""
        if table.shape != self.table.shape:
            raise MismatchError(f"a codebook of {tuple(table.shape)}, these latents need {tuple(self.table.shape)}")
        self.table.copy_(table)

    def codes(self, z: Tensor) -> Tensor:
        """z (B, K, D) standardised -> (B, K, Q) int64: the nearest entry, then that to what is left, as residual
        quantisation itself chooses."""
        length = z.shape[1]
        left = (z.float() * self.std[:length] + self.mean[:length]).flatten(0, 1)
        found = []
        for table in self.table.float():
            rows = max(_AT_ONCE // len(table), 1)
            chosen = torch.cat([torch.cdist(part, table).argmin(1) for part in left.split(rows)])
            left = left - table[chosen]
            found.append(chosen)
        return torch.stack(found, 1).view(*z.shape[:2], self.parts)

    def logits(self, h: Tensor, part: int, sum_so_far: Tensor | None) -> Tensor:
        """h (*, W), the sum of the entries before `part` (*, D), None before the first -> (*, V) float32."""
        if self.so_far is None or self.which is None:
            return self.network(h)
        h = h + self.which(torch.tensor(part, device=h.device)).to(h.dtype)
        return self.network(h if sum_so_far is None else h + self.so_far(sum_so_far.to(h.dtype)))

    def loss(self, h: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """Cross-entropy in nats a code, mean over the Q of a latent."""
        codes, before, found = self.codes(z), None, []
        for part in range(self.parts):
            logits = self.logits(h, part, before)
            found.append(F.cross_entropy(logits.transpose(1, 2), codes[..., part], reduction="none"))
            entry = self.table[part][codes[..., part]]
            before = entry if before is None else before + entry
        return torch.stack(found).mean(0)

    def sampler(self, temperature: float, config: CategoricalSampleConfig) -> Sampler:
        """Guidance moves log probabilities; temperature divides them, 0 takes the likeliest."""

        def sample(h: Tensor, free: Tensor | None, scale: float, draws: Draws, place: int | Tensor) -> Tensor:
            z: Tensor | None = None
            for part in range(self.parts):
                log_p = self.logits(h, part, z).log_softmax(-1)
                if free is not None:
                    log_p = guide(log_p, self.logits(free, part, z).log_softmax(-1), scale)
                if temperature == 0:
                    code = log_p.argmax(-1)
                else:
                    u = draws.uniform(f"{stream(place)}/code/{part}", (self.entries,))
                    code = choose(nucleus(log_p, temperature, config.top_p), u)
                entry = self.table[part][code]
                z = entry if z is None else z + entry
            assert z is not None
            return ((z - self.mean[place]) / self.std[place]).float()

        return sample
