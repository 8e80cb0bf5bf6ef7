"""Matching (ITM): does this caption belong to this prefix?

Each image is asked three times: its own prefix and caption, another's prefix that is near its caption, another's
caption that is near its prefix. Those hard negatives are drawn by the contrastive similarities, among all ranks, and
never have an equal caption. A small network looks at caption and prefix together, so that what no single vector says
can be told apart. Source: BLIP-2 (Li et al. 2023, arXiv:2301.12597).

Shapes: B images of this rank, N of all ranks, K latents of D channels, L caption levels, T text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.losses.contrast import LevelPairs, pairs_by_level
from seq_tokenizer.text.caption_network import CaptionNetwork, CaptionNetworkConfig
from seq_tokenizer.text.contrast import AT_ONCE
from seq_tokenizer.text.gather import rows_of_all_ranks, sum_of_all_ranks


class MatchConfig(CaptionNetworkConfig):
    weight: Annotated[float, Field(ge=0)] = 0.1


class MatchTerm(Term):
    """One caption level per image, drawn evenly; the mean over all pairs asked."""

    MUON_EXCLUDED = ("judge.weight",)

    def __init__(self, config: MatchConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.network = CaptionNetwork(config, tokenizer, tokenizer.text, "match", causal=False)
        self.judge = nn.Linear(config.width, 1)
        nn.init.normal_(self.judge.weight, std=0.02)

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        batch, rows = view.batch, torch.arange(len(view.batch), device=view.latents.device)
        levels = pairs_by_level(view, self.config.level_starts)
        level = (view.draws.uniform("matched level") * len(levels)).long().clamp(max=len(levels) - 1)
        images, texts, found = self._negatives(view, levels, level)
        latents = rows_of_all_ranks(view.latents)
        own_text = F.pad(batch.text_ids[..., : self.network.context], (0, self._missing(batch.text_ids)))
        text_ids = rows_of_all_ranks(own_text)
        prefixes = rows_of_all_ranks(torch.stack([pairs.prefix for pairs in levels], 1))
        own_k = torch.stack([pairs.prefix for pairs in levels], 1)[rows, level]
        asked_text = torch.cat([own_text[rows, level], own_text[rows, level], text_ids[texts, level]])
        asked_latents = torch.cat([view.latents, latents[images], view.latents])
        asked_k = torch.cat([own_k, prefixes[images, level], own_k])
        ids = self.network.trimmed(asked_text, len(levels))
        states = self.network(ids, level.repeat(3), asked_latents, asked_k)
        scores = self.judge(states[:, 0]).float().squeeze(-1)
        truth = (torch.arange(len(scores), device=scores.device) < len(rows)).float()
        counted = torch.cat([batch.caption_ids[rows, level] >= 0, found, found])
        return self._mean(scores, truth, counted)

    def _missing(self, text_ids: Tensor) -> int:
        """Ranks may have padded their captions to different lengths."""
        return max(0, self.network.context - text_ids.shape[-1])

    def _mean(self, scores: Tensor, truth: Tensor, counted: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        nats = F.binary_cross_entropy_with_logits(scores, truth, reduction="none")
        right = ((scores > 0) == (truth > 0)) & counted
        shares = torch.stack([(nats * counted).sum(), right.sum().float(), counted.sum().float()])
        nats_sum, right_sum, count = sum_of_all_ranks(shares).unbind()
        count = count.detach().clamp(min=1)
        loss = nats_sum / count
        return self.config.weight * loss, {"match_loss": loss.detach(), "match_right": right_sum.detach() / count}

    @torch.no_grad()
    def _negatives(self, view: View, levels: Sequence[LevelPairs], level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """level (B,) -> for every caption another prefix, for every prefix another caption, as rows of all ranks, and
        whether there was any. Candidates stand in the order of the data set: any number of ranks draws the same."""
        order = rows_of_all_ranks(view.batch.index).argsort(stable=True)
        u = view.draws.uniform("hard negatives", (2,))
        scale = view.tokenizer.logit_scale.exp().clamp(max=100.0)
        images, texts = torch.zeros_like(level), torch.zeros_like(level)
        found = torch.zeros_like(level, dtype=torch.bool)
        for number, (_, mine, everyone) in enumerate(levels):
            here = level == number
            ids = everyone.caption_ids[order]
            by_text = _draw(mine.texts, everyone.images[order], mine.caption_ids, ids, scale, u[:, 0])
            by_image = _draw(mine.images, everyone.texts[order], mine.caption_ids, ids, scale, u[:, 1])
            images, texts = torch.where(here, order[by_text], images), torch.where(here, order[by_image], texts)
            other = (ids[None] >= 0) & (ids[None] != mine.caption_ids[:, None])
            found = torch.where(here, other.any(1) & (mine.caption_ids >= 0), found)
        return images, texts, found


def _draw(rows: Tensor, columns: Tensor, ids: Tensor, all_ids: Tensor, scale: Tensor, u: Tensor) -> Tensor:
    """rows (B, E), columns (N, E), u (B,) in (0, 1) -> (B,) int64: a column with another caption, by softmax."""
    drawn = []
    at_once = max(1, AT_ONCE // len(all_ids))
    for row, own, place in zip(rows.split(at_once), ids.split(at_once), u.split(at_once), strict=True):
        stranger = (all_ids[None] >= 0) & (all_ids[None] != own[:, None])
        logits = (scale * row.float() @ columns.float().T).float().masked_fill(~stranger, -1e9)
        weight = logits.softmax(1).double() * stranger
        below = weight.cumsum(1)
        index = (below <= place[:, None].double() * below[:, -1:]).sum(1)
        drawn.append(index.clamp(max=len(all_ids) - 1))
    return torch.cat(drawn)
