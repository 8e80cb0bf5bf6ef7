"""Writing (ITG): from every prefix the captions that its length owes can be written down, word by word.

A small causal decoder looks at the prefix and predicts each token of the caption from those before it. Source: BLIP-2
(Li et al. 2023, arXiv:2301.12597). `greedy` says what a prefix says.

Shapes: B images, K latents of D channels, L caption levels, T text tokens, R = B L captions, V vocabulary.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.orders.prefix import draw_owed, owed_starts
from seq_tokenizer.text.caption_network import CaptionNetwork, CaptionNetworkConfig
from seq_tokenizer.text.tower import EOS, PAD

_AT_ONCE = 2**24  # logits of the vocabulary; more are made in parts, and made again in the backward pass


class WriteConfig(CaptionNetworkConfig):
    weight: Annotated[float, Field(ge=0)] = 0.1


class WriteTerm(Term):
    """Cross-entropy per token, averaged over each caption, over captions, over levels."""

    MUON_EXCLUDED = ("vocabulary.weight",)

    def __init__(self, config: WriteConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.network = CaptionNetwork(config, tokenizer, tokenizer.text, "write", causal=True)
        self.vocabulary = nn.Linear(config.width, self.network.vocabulary, bias=False)
        nn.init.normal_(self.vocabulary.weight, std=0.02)

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        batch, length = view.batch, view.latents.shape[1]
        ids = self.network.trimmed(batch.text_ids, batch.text_ids.shape[1])
        rows, levels = ids.shape[:2]
        starts = owed_starts(self.config.level_starts, length, levels)
        k = draw_owed(view.draws.uniform("written prefix", (levels,)), length, starts)
        level = torch.arange(levels, device=ids.device).expand(rows, -1)
        latents = view.latents.repeat_interleave(levels, 0)
        states = self.network(ids.flatten(0, 1), level.flatten(), latents, k.flatten())
        costs = self._costs(states, _followed_by_end(ids.flatten(0, 1)))
        written = batch.caption_ids >= 0
        losses = (costs.view(rows, levels) * written).sum(0) / written.sum(0).clamp(min=1)
        named = {f"write_loss_{level}": loss for level, loss in enumerate(losses.detach().unbind())}
        return self.config.weight * losses.mean(), named

    def _costs(self, states: Tensor, target: Tensor) -> Tensor:
        """states (R, 1 + T, W), target (R, 1 + T) padded with 0 -> (R,) nats per token."""
        at_once = max(1, _AT_ONCE // (target.shape[1] * self.network.vocabulary))
        if len(target) <= at_once:
            return self._part(states, target)
        parts = zip(states.split(at_once), target.split(at_once), strict=True)
        return torch.cat(
            [checkpoint(self._part, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        )

    def _part(self, states: Tensor, target: Tensor) -> Tensor:
        logits = self.vocabulary(states).float().transpose(1, 2)
        nats = F.cross_entropy(logits, target, ignore_index=PAD, reduction="none")
        return nats.sum(1) / (target != PAD).sum(1).clamp(min=1)

    @torch.no_grad()
    def greedy(self, latents: Tensor, k: int, level: int = 0) -> Tensor:
        """latents (B, K, D) -> (B, T) int64: the likeliest words, one after the other, for the caption of `level` from
        the first k latents; without <eos>, padded with 0."""
        rows = len(latents)
        length = torch.full((rows,), k, device=latents.device)
        which = torch.full((rows,), level, device=latents.device)
        ids = length.new_zeros((rows, 0))
        done = torch.zeros(rows, dtype=torch.bool, device=latents.device)
        while ids.shape[1] < self.network.context - 1:
            scores = self.vocabulary(self.network(ids, which, latents, length)[:, -1]).float()
            word = scores[:, 1:].argmax(-1) + 1  # never padding
            done = done | (word == EOS)
            if bool(done.all()):
                break
            ids = torch.cat([ids, word.masked_fill(done, PAD)[:, None]], 1)
        return ids


def _followed_by_end(ids: Tensor) -> Tensor:
    """(R, T) padded with 0 -> (R, 1 + T): the caption and <eos>."""
    return F.pad(ids, (0, 1), value=PAD).scatter(1, (ids != PAD).sum(1, keepdim=True), EOS)
