"""The causal Transformer over text and latents.

Unusual: a latent enters through one linear map of its standardised channels plus a learned vector of its
place in the sequence, because in an ordered sequence places differ in meaning. All weights lie in submodules
that are called as modules (no bare parameters), so that ZeRO 3 gathers them.

Shapes: B rows, N slots, W width, K latents of D channels, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from data_pipelines.captions.tokenizer import PAD
from seqtok_core.foundation.config import Config
from seqtok_core.layers.attention import KeyValueStore
from seqtok_core.layers.blocks import Block, init_linear
from seqtok_core.layers.rope import rope_table

_INPUT_STD = 0.5  # of token and place vectors; at the usual 0.02 content drowns them (design notes, measured)


class TransformerShape(Config):
    """The sizes of the causal Transformer. Widths are in channels."""

    width: int = Field(192, ge=8)
    depth: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    max_text_tokens: int = Field(64, ge=1)  # of one caption; longer prompts are refused
    # Whose weights write captions: the Transformer's, or as many of their own that see the image's keys and values
    # (Mixture-of-Transformers, arXiv:2411.04996). No gradient of captions reaches the image through these: writing
    # reads what drawing has learnt and does not disturb it (measured, docs/log.md).
    writer: Literal["shared", "own"] = "shared"

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} must be a multiple of 2 * heads={2 * self.heads}")
        return self


class Stack(nn.Module):
    """Words and slots in, hidden states out: h of a slot depends on that slot and on what its mask shows it."""

    MUON_EXCLUDED: tuple[str, ...] = ("token_in.weight", "text_out.weight")

    def __init__(self, shape: TransformerShape, vocab_size: int) -> None:
        super().__init__()
        self.heads, self.head_dim = shape.heads, shape.width // shape.heads
        self.token_in = nn.Embedding(vocab_size, shape.width)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads, i) for i in range(shape.depth))
        self.norm_out = nn.LayerNorm(shape.width, bias=False)
        self.text_out = nn.Linear(shape.width, vocab_size, bias=False)
        init_linear(self, shape.depth)
        nn.init.normal_(self.token_in.weight, std=_INPUT_STD)
        nn.init.zeros_(self.text_out.weight)  # starts from even odds

    def embed_text(self, ids: Tensor) -> Tensor:
        """(B, n) -> (B, n, W)."""
        return self.token_in(ids)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: KeyValueStore | None = None,
        kept: list[Tensor] | None = None,
    ) -> Tensor:
        """x (B, N, W), positions (N,) or (B, N), mask (B, 1, N, M) bool -> h (B, N, W). M counts cached slots too. What
        comes out of every block is added to `kept`."""
        rope = rope_table(positions[..., None], self.head_dim)
        if positions.ndim == 2:
            rope = rope[:, :, None]  # alike for all attention heads
        for block in self.blocks:
            x = block(x, mask, rope, cache=cache)
            if kept is not None:
                kept.append(x)
        return self.norm_out(x)

    def text_logits(self, h: Tensor) -> Tensor:
        """(..., W) -> (..., V)."""
        return self.text_out(h)


class Backbone(Stack):
    """What reads prompts and latents; captions are written by its own weights or by those of its `writer`."""

    MUON_EXCLUDED = (*Stack.MUON_EXCLUDED, "latent_in.weight", "place_in.weight")

    def __init__(self, shape: TransformerShape, vocab_size: int, length: int, dim: int) -> None:
        super().__init__(shape, vocab_size)
        self.latent_in = nn.Linear(dim, shape.width)
        self.place_in = nn.Embedding(length, shape.width)
        init_linear(self.latent_in, shape.depth)
        nn.init.normal_(self.place_in.weight, std=_INPUT_STD)
        self.writer = Stack(shape, vocab_size) if shape.writer == "own" else None

    @property
    def writing(self) -> Stack:
        """Whose weights read <eoi> and the words after it. Its slots see those of the image layer by layer."""
        return self if self.writer is None else self.writer

    def embed_latents(self, z: Tensor, first: int = 0, hidden: Tensor | None = None) -> Tensor:
        """z (B, n, D) standardised, the first of them at place `first` (from 0) -> (B, n, W). Where `hidden` (B, n) is
        True nothing is told but the place: the vector of <pad> stands for the latent."""
        place = torch.arange(first, first + z.shape[1], device=z.device)
        x = self.latent_in(z.to(self.latent_in.weight.dtype))
        if hidden is not None:
            x = torch.where(hidden[..., None], self.token_in(torch.full_like(place, PAD)).to(x.dtype), x)
        return x + self.place_in(place)
