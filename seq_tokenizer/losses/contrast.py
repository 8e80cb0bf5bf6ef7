"""Contrast of prefixes and captions: every prefix knows the captions that its length owes.

Shapes: B images, K latents, L caption levels.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.orders.prefix import draw_prefix, owed_starts
from seq_tokenizer.shape import Positive
from seq_tokenizer.text.contrast import CaptionLoss
from seqtok_core.foundation.config import Config


class ContrastConfig(Config):
    """How strongly text shapes the order."""

    weight: Annotated[float, Field(ge=0)] = 0.1  # 0: text is measured, not taught
    level_starts: tuple[Positive, ...] | None = None  # shortest prefix that must know each caption level
    logit_scale_max: float = 100.0


class ContrastTerm(Term):
    """One contrastive loss per caption level, each against prefixes that owe that level; their mean counts."""

    needs_text: ClassVar[bool] = True

    def __init__(self, config: ContrastConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.caption_loss = CaptionLoss(config.logit_scale_max)

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        tokenizer, batch = view.tokenizer, view.batch
        embeddings = tokenizer.prefix_embeddings(view.latents)
        length, levels = view.latents.shape[1], batch.text_ids.shape[1]
        starts = owed_starts(self.config.level_starts, length, levels)
        u = view.draws.uniform("caption prefix", (levels,))
        rows = torch.arange(len(batch), device=embeddings.device)
        losses = []
        for level in range(levels):
            k = draw_prefix(u[:, level], length, starts[level])
            texts = tokenizer.encode_text(batch.text_ids[:, level])
            ids = batch.caption_ids[:, level]
            losses.append(self.caption_loss(embeddings[rows, k - 1], texts, ids, tokenizer.logit_scale))
        named = {f"text_loss_{level}": loss.detach() for level, loss in enumerate(losses)}
        return self.config.weight * torch.stack(losses).mean(), named
