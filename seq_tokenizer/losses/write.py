"""Every prefix writes the caption that its length owes: word by word, from its latents alone.

Shapes: B images, K latents, L caption levels, T text tokens.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.orders.prefix import draw_prefix, owed_starts
from seq_tokenizer.shape import Positive
from seq_tokenizer.text.tower import PAD
from seq_tokenizer.text.writer import CaptionWriter
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError

_TOKENS = 8  # text comes in few shapes: its length is rounded up to a multiple of this


class WriteConfig(Config):
    """How strongly, and by how large a writer; it is not part of the tokenizer that is saved."""

    weight: Annotated[float, Field(ge=0)] = 0.02
    level_starts: tuple[Positive, ...] | None = None  # shortest prefix that must write each caption level
    width: Positive = 64
    layers: Positive = 1
    heads: Positive = 2


class WriteTerm(Term):
    """One caption level per image and step, drawn evenly, and a prefix that owes it."""

    needs_text: ClassVar[bool] = True

    def __init__(self, config: WriteConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        text = tokenizer.text
        if text is None or text.vocab_size is None:
            raise ConfigError("`write`: a caption writer needs a text tower and the vocabulary of a captions model")
        self.config = config
        self.writer = CaptionWriter(
            text.vocab_size,
            text.context,
            tokenizer.num_latents,
            tokenizer.latent_dim,
            config.width,
            config.layers,
            config.heads,
        )

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        batch, length = view.batch, view.latents.shape[1]
        levels = batch.text_ids.shape[1]
        starts = torch.tensor(owed_starts(self.config.level_starts, length, levels), device=view.latents.device)
        level = (view.draws.uniform("written level") * levels).long()
        prefix = draw_prefix(view.draws.uniform("written prefix"), length, starts[level])
        text = batch.text_ids[torch.arange(len(level), device=level.device), level]  # (B, T)
        each = self.writer.loss(view.latents, prefix, self._in_few_shapes(text))
        written = (text != PAD).any(1)
        loss = each.sum() / written.sum().clamp(min=1)
        return self.config.weight * loss, {"write_loss": loss.detach()}

    def _in_few_shapes(self, text: Tensor) -> Tensor:
        """(B, T) -> padding left out or added up to a multiple of _TOKENS; <bos> must fit before it."""
        most = len(self.writer.places) - 1
        longest = max(int((text != PAD).sum(1).max()), 1)
        if longest > most:
            raise ConfigError(
                f"a caption has {longest} tokens, the writer takes {most}; read the captions with a smaller max_tokens"
            )
        longest = min(-(-longest // _TOKENS) * _TOKENS, most)
        return F.pad(text, (0, max(longest - text.shape[1], 0)), value=PAD)[:, :longest]
