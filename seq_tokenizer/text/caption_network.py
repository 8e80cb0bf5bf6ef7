"""A small Transformer over a caption that looks at a prefix of latents: what writing and matching are made of.

Slot 0 is a learned vector that says which caption level is meant, slot i + 1 the caption's token i. Latents beyond the
prefix are replaced by a learned "absent" vector before anything looks at them. Source: BLIP-2's second and third
objective (Li et al. 2023, arXiv:2301.12597), with latents in place of its queries.

Shapes: R captions, T text tokens, K latents of D channels, W width.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from seq_tokenizer.orders.prefix import keep_prefix
from seq_tokenizer.shape import Positive, TokenizerShape
from seq_tokenizer.text.tower import PAD, TextConfig
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.blocks import Block, causal_mask, init_linear

_STEP = 8  # lengths of text are rounded up to multiples of it, as in tower.py


class CaptionNetworkConfig(Config):
    """Its sizes, and which prefix owes which caption."""

    level_starts: tuple[Positive, ...] | None = None  # shortest prefix that owes each caption level
    width: Positive = 128
    layers: Positive = 2
    heads: Positive = 4
    levels: Positive = 8  # at most so many caption levels

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class CaptionNetwork(nn.Module):
    MUON_EXCLUDED = ("words.weight", "levels", "text_positions", "latent_positions")

    def __init__(
        self, config: CaptionNetworkConfig, shape: TokenizerShape, text: TextConfig | None, who: str, causal: bool
    ) -> None:
        super().__init__()
        if text is None or text.vocab_size is None:
            raise ConfigError(
                f"`{who}` needs captions, and this tokenizer has no text: give it one, or leave {who} out"
            )
        self.who, self.causal, self.context, self.vocabulary = who, causal, text.context, text.vocab_size
        width = config.width
        self.words = nn.Embedding(text.vocab_size, width)
        self.levels = nn.Parameter(torch.randn(config.levels, width))
        self.text_positions = nn.Parameter(0.5 * torch.randn(text.context, width))
        self.project = nn.Linear(shape.latent_dim, width)
        self.absent = nn.Parameter(torch.zeros(width))
        self.latent_positions = nn.Parameter(torch.randn(shape.num_latents, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, i, cross=True) for i in range(config.layers))
        self.norm = nn.LayerNorm(width, bias=False)
        init_linear(self.blocks, config.layers)
        nn.init.normal_(self.words.weight, std=0.5)
        nn.init.normal_(self.project.weight, std=shape.latent_dim**-0.5)

    def forward(self, text_ids: Tensor, level: Tensor, latents: Tensor, num_tokens: Tensor) -> Tensor:
        """text_ids (R, T) padded with 0, level (R,), latents (R, K, D), num_tokens (R,) >= 1 -> (R, 1 + T, W).

        Slot i has seen the tokens before i alone (`causal`), or all of the caption.
        """
        context = keep_prefix(self.project(latents), num_tokens, self.absent) + self.latent_positions
        x = torch.cat([self.levels[level][:, None], self.words(text_ids)], 1)
        x = (x + self.text_positions[: x.shape[1]]).to(context.dtype)
        mask = causal_mask(x.shape[1], x.device)
        if not self.causal:
            mask = F.pad(text_ids != PAD, (1, 0), value=True)[:, None, None].expand(-1, -1, x.shape[1], -1)
        for block in self.blocks:
            x = block(x, mask, context=context)
        return self.norm(x)

    def trimmed(self, text_ids: Tensor, levels: int) -> Tensor:
        """(..., T) of captions of `levels` levels -> without the padding that none needs, but for the rounding.

        Raises ConfigError where a caption is too long or there are too many levels.
        """
        longest = int((text_ids != PAD).sum(-1).max())
        if longest >= self.context:
            raise ConfigError(
                f"a caption has {longest} tokens, the text tower's context takes {self.context - 1}; "
                "read the captions with a smaller max_tokens"
            )
        if levels > len(self.levels):
            raise ConfigError(f"`{self.who}.levels`={len(self.levels)}, but the captions have {levels} levels")
        length = min(max(_STEP, -(-longest // _STEP) * _STEP), self.context - 1)
        return F.pad(text_ids[..., :length], (0, max(0, length - text_ids.shape[-1])), value=PAD)
