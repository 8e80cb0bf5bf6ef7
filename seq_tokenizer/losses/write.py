"""Writing (ITG): from every prefix the captions that its length owes can be written down, word by word.

Trains the tokenizer's own writer (text/writer.py), and the encoder through it. Source: BLIP-2 (Li et al. 2023,
arXiv:2301.12597). Shapes: B images, L caption levels, T text tokens, R = B L captions.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.orders.prefix import draw_owed, owed_starts
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError


class WriteConfig(Config):
    weight: Annotated[float, Field(ge=0)] = 0.1


class WriteTerm(Term):
    """Cross-entropy per token, averaged over each caption, over captions, over levels."""

    def __init__(self, config: WriteConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        if tokenizer.writer is None:
            raise ConfigError(
                "`write` teaches the tokenizer's writer, and this one has none: give it a `writer`, or no `write`"
            )

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        batch, length, writer = view.batch, view.latents.shape[1], view.tokenizer.writer
        assert writer is not None
        ids = writer.network.trimmed(batch.text_ids, batch.text_ids.shape[1])
        rows, levels = ids.shape[:2]
        starts = owed_starts(writer.config.level_starts, length, levels)
        k = draw_owed(view.draws.uniform("written prefix", (levels,)), length, starts)
        level = torch.arange(levels, device=ids.device).expand(rows, -1)
        latents = view.latents.repeat_interleave(levels, 0)
        nats = writer.nats(ids.flatten(0, 1), level.flatten(), latents, k.flatten())
        written = batch.caption_ids >= 0
        losses = (nats.view(rows, levels) * written).sum(0) / written.sum(0).clamp(min=1)
        named = {f"write_loss_{level}": loss for level, loss in enumerate(losses.detach().unbind())}
        return self.config.weight * losses.mean(), named
