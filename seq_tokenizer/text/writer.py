"""A prefix writes its caption (ITG): a small causal Transformer over words that cross-attends to the latents.

BLIP-2's third objective (Li et al. 2023, arXiv:2301.12597), asked of prefixes. Every next word is a choice among all
words, where contrast only tells the captions of one batch apart. Shapes: B images, K latents of D channels, T text
tokens, V words, U width of the writer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq_tokenizer.orders.prefix import keep_prefix
from seq_tokenizer.text.tower import BOS, EOS, PAD
from seqtok_core.layers.blocks import Block, causal_mask, init_linear


class CaptionWriter(nn.Module):
    """(prefix, the caption so far) -> its next word."""

    MUON_EXCLUDED = ("words", "places", "latent_in.weight", "latent_places")

    def __init__(
        self, vocab_size: int, context: int, length: int, dim: int, width: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        self.words = nn.Parameter(0.5 * torch.randn(vocab_size, width))
        self.places = nn.Parameter(0.5 * torch.randn(context, width))
        self.latent_in = nn.Linear(dim, width)
        self.latent_places = nn.Parameter(0.5 * torch.randn(length, width))
        self.absent = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(Block(width, heads, i, cross=True) for i in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        init_linear(self.blocks, layers)
        nn.init.normal_(self.latent_in.weight, std=dim**-0.5)

    def forward(self, latents: Tensor, prefix: Tensor, text_ids: Tensor) -> Tensor:
        """latents (B, K, D), prefix (B,) int64, text_ids (B, T) read so far -> (B, T, V) logits of the next."""
        known = keep_prefix(self.latent_in(latents), prefix, self.absent) + self.latent_places[: latents.shape[1]]
        x = self.words[text_ids] + self.places[: text_ids.shape[1]]
        x = x.to(known.dtype)
        mask = causal_mask(text_ids.shape[1], x.device)
        for block in self.blocks:
            x = block(x, mask, context=known)
        return self.norm(x) @ self.words.T.to(x.dtype)

    def loss(self, latents: Tensor, prefix: Tensor, text_ids: Tensor) -> Tensor:
        """text_ids (B, T) content padded with 0 -> (B,) nats per word, <eos> included; 0 where there is no caption."""
        length = (text_ids != PAD).sum(1, keepdim=True)
        start = text_ids.new_full((len(text_ids), 1), BOS)
        read = torch.cat([start, text_ids], 1)
        target = torch.cat([text_ids, torch.full_like(start, PAD)], 1).scatter(1, length, EOS)
        logits = self(latents, prefix, read).float()
        each = F.cross_entropy(logits.transpose(1, 2), target, reduction="none", ignore_index=PAD)
        return each.sum(1) / (length[:, 0] + 1) * (length[:, 0] > 0)

    @torch.no_grad()
    def greedy(self, latents: Tensor, prefix: Tensor, longest: int) -> Tensor:
        """-> (B, longest) int64: the likeliest word each time, PAD after <eos>."""
        read = torch.full((len(latents), 1), BOS, dtype=torch.int64, device=latents.device)
        ended = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
        for _ in range(longest):
            word = self(latents, prefix, read)[:, -1].argmax(-1)
            ended = ended | (word == EOS)
            read = torch.cat([read, torch.where(ended, PAD, word)[:, None]], 1)
        return read[:, 1:]
