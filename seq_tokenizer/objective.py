"""What a tokenizer is trained for: the sum of the terms in losses/ and of what the bottleneck asks.

Shapes: B images, K latents.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_pipelines.samples import ImageTextBatch
from seq_tokenizer.bottlenecks.base import Bottled
from seq_tokenizer.encoders.patches import require_patches
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.losses.build import LossesConfig, build_terms
from seq_tokenizer.orders.prefix import draw_prefix
from seq_tokenizer.shape import Positive
from seq_tokenizer.tokenizer import SeqTokenizer
from seqtok_core.foundation.config import LATER
from seqtok_core.layers.blocks import Block, ModulatedBlock
from seqtok_core.layers.muon import excluded_from_muon
from seqtok_core.layers.randomness import Draws


class TokenizerTrainingConfig(LossesConfig):
    """The terms, and the seed of what is drawn for a sample."""

    seed: int = 0
    # Sides in pixels, one drawn for every micro-batch, which is resized to it; (): pictures as they are. Like what a
    # caption is contrasted with, it is the batch's: other micro-batches are other numbers.
    sizes: Annotated[tuple[Positive, ...], LATER] = ()
    # Whether pictures are decoded from prefixes, too. Without, both decodings are from all tokens, at the same cost.
    nested: Annotated[bool, LATER] = True


class TokenizerObjective(nn.Module):
    def __init__(self, tokenizer: SeqTokenizer, config: TokenizerTrainingConfig) -> None:
        super().__init__()
        self.tokenizer, self.config = tokenizer, config
        for side in config.sizes:
            require_patches(side, side, tokenizer.config.patch_size)
        self.terms = build_terms(config, tokenizer)

    def checkpointed_blocks(self) -> list[nn.Module]:
        """What activation checkpointing may compute twice."""
        return [module for module in self.modules() if isinstance(module, Block | ModulatedBlock)]

    def muon_excluded(self) -> set[str]:
        """Matrices whose rows are looked up or added, and the maps from and to pixels: AdamW trains them."""
        return excluded_from_muon(self) - {name for name, p in self.named_parameters() if not p.requires_grad}

    def own_rates(self) -> dict[str, dict[str, Any]]:
        """Parts that learn against the rest, and their rates."""
        terms = [(name, term) for name, term in self.terms.items() if isinstance(term, Term)]
        return {f"terms.{name}.{part}": rates for name, term in terms for part, rates in term.own_rates().items()}

    def forward(self, batch: ImageTextBatch) -> dict[str, Tensor]:
        """-> "loss" and the scalars of every term."""
        return self.with_latents(batch)[0]

    def with_latents(self, batch: ImageTextBatch) -> tuple[dict[str, Tensor], Tensor]:
        """As `forward`, and the latents (B, K, D) as `encode` hands them out, with their gradient, for whoever learns
        from them at the same time."""
        view, bottled = self._view(batch)
        losses = bottled.losses
        shown = {name: loss.detach() for name, loss in losses.items()} | dict(bottled.shown)
        summands = list(losses.values())
        for term in self.terms.values():
            loss, named = term(view)
            summands.append(loss)
            shown |= named
        return {"loss": sum(summands[1:], summands[0]), **shown}, bottled.z if bottled.clean is None else bottled.clean

    def _view(self, batch: ImageTextBatch) -> tuple[View, Bottled]:
        draws, pixels = Draws(self.config.seed, batch.epoch, batch.index), batch.pixels()
        pixels = self._resized(pixels, draws)
        reads = {part for term in self.terms.values() if isinstance(term, Term) for part in term.reads}
        inside: dict[str, Tensor] = {}
        bottled = self.tokenizer.bottle(pixels, draws, states=inside if "encoder" in reads else None)
        z, length = bottled.z, bottled.z.shape[1]
        k = draw_prefix(draws.uniform("prefix"), length, 1 if self.config.nested else length)
        lengths = torch.cat([k, torch.full_like(k, length)])
        twice = torch.cat([z, z])
        if self.tokenizer.decoder.generative:
            # Epochs below zero are nobody else's: the second decoding has noise and times of its own.
            epochs, index = torch.cat([batch.epoch, -1 - batch.epoch]), torch.cat([batch.index, batch.index])
            own = Draws(self.config.seed, epochs, index)
            loss = self.tokenizer.decoder.loss(twice, lengths, torch.cat([pixels, pixels]), own)
            return View(batch, pixels, z, k, None, draws, self.tokenizer, loss, inside), bottled
        size, asked = (pixels.shape[-2], pixels.shape[-1]), inside if "decoder" in reads else None
        decoded = self.tokenizer.decode(twice, lengths, size=size, states=asked).float()
        return View(batch, pixels, z, k, decoded, draws, self.tokenizer, None, inside), bottled

    def _resized(self, pixels: Tensor, draws: Draws) -> Tensor:
        """(B, 3, H, W) -> (B, 3, S, S) with S as the first sample draws it."""
        if not self.config.sizes:
            return pixels
        side = self.config.sizes[int(draws.uniform("size")[0] * len(self.config.sizes))]
        return F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
