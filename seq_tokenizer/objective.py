"""What a tokenizer is trained for: every prefix decodes to the image, and every prefix knows its captions.

Shapes: B images, K latents, L caption levels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_pipelines.samples import ImageTextBatch
from seq_tokenizer.config import TokenizerTrainingConfig
from seq_tokenizer.ordering import draw_prefix, draw_prefix_or_all, level_starts
from seq_tokenizer.text_alignment import CaptionLoss
from seq_tokenizer.tokenizer import SeqTokenizer
from seqtok_core.layers.randomness import normal, uniform


_TEXT_TABLES = ("token_embedding.weight", "positional_embedding", "text_projection")


class TokenizerObjective(nn.Module):
    def __init__(self, tokenizer: SeqTokenizer, config: TokenizerTrainingConfig) -> None:
        super().__init__()
        self.tokenizer, self.config = tokenizer, config
        self.caption_loss = CaptionLoss(config.logit_scale_max)

    def muon_excluded(self) -> set[str]:
        """Matrices whose rows are looked up or added, and the maps from and to pixels: AdamW trains them."""
        names = {"encoder.queries", "encoder.patches.project.weight", "decoder.positions", "decoder.pixels.weight"}
        if self.tokenizer.text is not None:
            names |= {f"text.tower.{name}" for name in _TEXT_TABLES}
        return {f"tokenizer.{name}" for name in names}

    def forward(self, batch: ImageTextBatch) -> dict[str, Tensor]:
        config, length = self.config, self.tokenizer.config.num_latents
        pixels = batch.pixels()
        z = self.tokenizer.encode(pixels)
        noise = normal(config.seed, "latent noise", batch.epoch, batch.index, z.shape[1:])
        noisy = z + config.latent_noise * noise
        u = uniform(config.seed, "prefix", batch.epoch, batch.index)
        k = draw_prefix_or_all(u, length, config.full_length_share)
        errors = (self.tokenizer.decode(noisy, k).float() - pixels).square().mean((1, 2, 3))
        pixel_loss = (errors * (k / length) ** config.length_weight).mean()
        losses = {"loss": pixel_loss, "pixel_loss": pixel_loss.detach()}
        if self.tokenizer.text is not None:
            texts = self._text_losses(batch, noisy)
            losses["loss"] = pixel_loss + config.text_weight * torch.stack(texts).mean()
            losses |= {f"text_loss_{level}": loss.detach() for level, loss in enumerate(texts)}
        return losses

    def _text_losses(self, batch: ImageTextBatch, latents: Tensor) -> list[Tensor]:
        """One contrastive loss per caption level, each against prefixes that owe that level."""
        embeddings = self.tokenizer.prefix_embeddings(latents)
        length, levels = latents.shape[1], batch.text_ids.shape[1]
        starts = self.config.level_starts or level_starts(length, levels)
        u = uniform(self.config.seed, "caption prefix", batch.epoch, batch.index, (levels,))
        rows = torch.arange(len(batch), device=latents.device)
        losses = []
        for level in range(levels):
            k = draw_prefix(u[:, level], length, starts[level])
            texts = self.tokenizer.encode_text(batch.text_ids[:, level])
            ids = batch.caption_ids[:, level]
            losses.append(self.caption_loss(embeddings[rows, k - 1], texts, ids, self.tokenizer.logit_scale))
        return losses
