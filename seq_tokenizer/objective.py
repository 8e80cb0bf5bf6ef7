"""What a tokenizer is trained for: the sum of the terms in losses/ and of what the bottleneck asks.

Shapes: B images, K latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from data_pipelines.samples import ImageTextBatch
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.losses.build import LossesConfig, build_terms
from seq_tokenizer.orders.prefix import draw_prefix
from seq_tokenizer.tokenizer import SeqTokenizer
from seqtok_core.layers.blocks import Block
from seqtok_core.layers.muon import excluded_from_muon
from seqtok_core.layers.randomness import Draws


class TokenizerTrainingConfig(LossesConfig):
    """The terms, and the seed of what is drawn for a sample."""

    seed: int = 0


class TokenizerObjective(nn.Module):
    def __init__(self, tokenizer: SeqTokenizer, config: TokenizerTrainingConfig) -> None:
        super().__init__()
        self.tokenizer, self.config = tokenizer, config
        self.terms = build_terms(config, tokenizer)

    def checkpointed_blocks(self) -> list[nn.Module]:
        """What activation checkpointing may compute twice."""
        return [module for module in self.modules() if isinstance(module, Block)]

    def muon_excluded(self) -> set[str]:
        """Matrices whose rows are looked up or added, and the maps from and to pixels: AdamW trains them."""
        return excluded_from_muon(self)

    def own_rates(self) -> dict[str, dict[str, Any]]:
        """Parts that learn against the rest, and their rates."""
        terms = [(name, term) for name, term in self.terms.items() if isinstance(term, Term)]
        return {f"terms.{name}.{part}": rates for name, term in terms for part, rates in term.own_rates().items()}

    def forward(self, batch: ImageTextBatch) -> dict[str, Tensor]:
        """-> "loss" and the scalars of every term."""
        view, losses = self._view(batch)
        shown = {name: loss.detach() for name, loss in losses.items()}
        summands = list(losses.values())
        for term in self.terms.values():
            loss, named = term(view)
            summands.append(loss)
            shown |= named
        return {"loss": sum(summands[1:], summands[0]), **shown}

    def _view(self, batch: ImageTextBatch) -> tuple[View, dict[str, Tensor]]:
        draws, pixels = Draws(self.config.seed, batch.epoch, batch.index), batch.pixels()
        reads = {part for term in self.terms.values() if isinstance(term, Term) for part in term.reads}
        inside: dict[str, Tensor] = {}
        bottled = self.tokenizer.bottle(pixels, draws, states=inside if "encoder" in reads else None)
        z, length = bottled.z, bottled.z.shape[1]
        k = draw_prefix(draws.uniform("prefix"), length)
        lengths = torch.cat([k, torch.full_like(k, length)])
        asked = inside if "decoder" in reads else None
        decoded = self.tokenizer.decode(torch.cat([z, z]), lengths, states=asked).float()
        return View(batch, pixels, z, k, decoded, draws, self.tokenizer, inside), bottled.losses
