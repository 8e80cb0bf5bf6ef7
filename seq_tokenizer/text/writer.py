"""What a prefix says, in words: a small causal decoder writes the captions that the prefix owes.

Source: the captioning third of BLIP-2's first stage (Li et al. 2023, arXiv:2301.12597). Trained by losses/write.py.

Shapes: R captions, B images, K latents of D channels, T text tokens, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq_tokenizer.shape import TokenizerShape
from seq_tokenizer.text.caption_network import CaptionNetwork, CaptionNetworkConfig
from seq_tokenizer.text.tower import EOS, PAD, TextConfig
from seqtok_core.foundation.errors import ConfigError

_AT_ONCE = 2**24  # logits of the vocabulary; more are made in parts, and made again in the backward pass


class WriterConfig(CaptionNetworkConfig):
    """A part of the tokenizer: what it has learnt to say goes with its weights."""


class Writer(nn.Module):
    MUON_EXCLUDED = ("vocabulary.weight",)

    def __init__(self, config: WriterConfig, shape: TokenizerShape, text: TextConfig | None) -> None:
        super().__init__()
        self.config = config
        self.network = CaptionNetwork(config, shape, text, "writer", causal=True)
        self.vocabulary = nn.Linear(config.width, self.network.vocabulary, bias=False)
        nn.init.normal_(self.vocabulary.weight, std=0.02)

    def nats(self, text_ids: Tensor, level: Tensor, latents: Tensor, num_tokens: Tensor) -> Tensor:
        """text_ids (R, T) padded with 0, level (R,), latents (R, K, D), num_tokens (R,) >= 1 -> (R,) nats per token of
        the caption and its <eos>."""
        states = self.network(text_ids, level, latents, num_tokens)
        target = F.pad(text_ids, (0, 1), value=PAD).scatter(1, (text_ids != PAD).sum(1, keepdim=True), EOS)
        at_once = max(1, _AT_ONCE // (target.shape[1] * self.network.vocabulary))
        if len(target) <= at_once:
            return self._nats(states, target)
        parts = zip(states.split(at_once), target.split(at_once), strict=True)
        return torch.cat(
            [checkpoint(self._nats, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        )

    def _nats(self, states: Tensor, target: Tensor) -> Tensor:
        logits = self.vocabulary(states).float().transpose(1, 2)
        nats = F.cross_entropy(logits, target, ignore_index=PAD, reduction="none")
        return nats.sum(1) / (target != PAD).sum(1).clamp(min=1)

    @torch.no_grad()
    def write(self, latents: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """latents (B, k, D) -> (B, T) int64, the likeliest words, one after the other, for the caption of `level`,
        without <eos>, padded with 0; and (B,) float32, the logarithm of the probability that it gives the whole."""
        rows, known = latents.shape[:2]
        whole = F.pad(latents, (0, 0, 0, self.network.latent_positions.shape[0] - known))
        length = torch.full((rows,), known, device=latents.device)
        which = torch.full((rows,), level, device=latents.device)
        ids = length.new_zeros((rows, 0))
        done = torch.zeros(rows, dtype=torch.bool, device=latents.device)
        sure = torch.zeros(rows, device=latents.device)
        while ids.shape[1] < self.network.context - 1:
            scores = self.vocabulary(self.network(ids, which, whole, length)[:, -1]).float().log_softmax(-1)
            best, word = scores[:, 1:].max(-1)  # never padding
            sure = sure + best.masked_fill(done, 0.0)
            done = done | (word + 1 == EOS)
            if bool(done.all()):
                break
            ids = torch.cat([ids, (word + 1).masked_fill(done, PAD)[:, None]], 1)
        return ids, sure

    def finest(self, latents: Tensor, sure: float) -> Tensor:
        """As `write`, for every row the finest level of which what is written has at least the probability `sure`."""
        if self.config.level_starts is None:
            raise ConfigError("say which caption level is to be written: this tokenizer's writer.level_starts is null")
        chosen, _ = self.write(latents, 0)
        for level in range(1, len(self.config.level_starts)):
            ids, found = self.write(latents, level)
            longest = max(ids.shape[1], chosen.shape[1])
            ids, chosen = (F.pad(text, (0, longest - text.shape[1]), value=PAD) for text in (ids, chosen))
            chosen = torch.where((found >= math.log(sure))[:, None], ids, chosen)
        return chosen
