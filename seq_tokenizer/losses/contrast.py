"""Contrast of prefixes and captions: every prefix knows the captions that its length owes.

Shapes: B images of this rank, N images of all ranks, K latents, L caption levels, E shared space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.orders.prefix import draw_owed, owed_starts
from seq_tokenizer.shape import Positive
from seq_tokenizer.text.contrast import CaptionLoss, Pairs
from seq_tokenizer.text.gather import ranks, rows_of_all_ranks, sum_of_all_ranks
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError


class ContrastConfig(Config):
    """How strongly text shapes the order."""

    loss: Literal["softmax", "sigmoid"] = "softmax"  # CLIP's over the batch, or SigLIP's of each pair
    weight: Annotated[float, Field(ge=0)] = 0.1  # 0: text is measured, not taught
    level_starts: tuple[Positive, ...] | None = None  # shortest prefix that must know each caption level
    logit_scale_max: Annotated[float, Field(gt=0)] = 100.0


class LevelPairs(NamedTuple):
    """One caption level of a batch."""

    prefix: Tensor  # (B,) int64, the length that was drawn among those that owe the level
    mine: Pairs
    everyone: Pairs  # of all ranks; one process: the same


class ContrastTerm(Term):
    """One contrastive loss per caption level, each against prefixes that owe that level; their mean counts."""

    needs_text: ClassVar[bool] = True

    def __init__(self, config: ContrastConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        length = tokenizer.num_latents
        if tokenizer.readout == "last" and set(config.level_starts or ()) != {length}:
            raise ConfigError(
                f"`contrast.level_starts`: this tokenizer's text reads the last token alone, so every level is owed by "
                f"all {length}; give [{length}, ...], one for each level, or set `readout` to prefix"
            )
        self.caption_loss = CaptionLoss(config.logit_scale_max, config.loss)

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        scale = view.tokenizer.logit_scale
        shares = [
            self.caption_loss(pairs.mine, scale, pairs.everyone)
            for pairs in pairs_by_level(view, self.config.level_starts)
        ]
        losses = sum_of_all_ranks(torch.stack(shares))
        named = {f"text_loss_{level}": loss for level, loss in enumerate(losses.detach().unbind())}
        return self.config.weight * losses.mean() + self.caption_loss.pull(scale), named


def pairs_by_level(view: View, level_starts: tuple[int, ...] | None) -> Sequence[LevelPairs]:
    """For each level a prefix of every image beside its caption, gathered over ranks once for all levels and terms."""
    return view.once(("pairs", level_starts), lambda: _pairs_by_level(view, level_starts))


def _pairs_by_level(view: View, level_starts: tuple[int, ...] | None) -> list[LevelPairs]:
    tokenizer, batch = view.tokenizer, view.batch
    embeddings = tokenizer.prefix_embeddings(view.latents)
    levels = batch.text_ids.shape[1]
    starts = owed_starts(level_starts, view.latents.shape[1], levels)
    lengths = draw_owed(view.draws.uniform("caption prefix", (levels,)), view.latents.shape[1], starts)
    rows = torch.arange(len(batch), device=embeddings.device)
    images = [embeddings[rows, k - 1] for k in lengths.unbind(1)]
    texts = [tokenizer.encode_text(ids) for ids in batch.text_ids.unbind(1)]
    ids = batch.caption_ids.unbind(1)
    mine = [Pairs(*parts) for parts in zip(images, texts, ids, strict=True)]
    everyone = mine
    if ranks() > 1:
        gathered = rows_of_all_ranks(torch.stack([*images, *texts], 1).float()).unbind(1)
        all_ids = rows_of_all_ranks(batch.caption_ids).unbind(1)
        everyone = [Pairs(*parts) for parts in zip(gathered[:levels], gathered[levels:], all_ids, strict=True)]
    return [LevelPairs(*parts) for parts in zip(lengths.unbind(1), mine, everyone, strict=True)]
