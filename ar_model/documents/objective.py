"""What a sequence model learns of documents: each picture from the texts and pictures before it, and each text.

Everything random belongs to a sample (seed, epoch, index). Losses are means over a document's pictures and over its
text tokens, then over documents: so a batch cut into micro-batches, or over ranks, has the loss of the whole.

Shapes: B documents of M rows, T text tokens, K latents of D channels.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from ar_model.documents.layout import DocumentRows, document_slots
from ar_model.generator import SeqGenerator
from ar_model.objective import text_loss
from ar_model.sequences.layout import writing_rows
from data_pipelines.captions.tokenizer import PAD
from data_pipelines.samples import DocumentBatch
from seq_tokenizer.latents import LatentSpec
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.blocks import Block
from seqtok_core.layers.muon import excluded_from_muon
from seqtok_core.layers.randomness import Draws


class DocumentObjectiveConfig(Config):
    """What one training step on documents asks of the model."""

    condition_dropout: float = Field(0.1, ge=0, lt=1)  # share of documents whose pictures are told nothing
    input_noise: float = Field(0.0, ge=0)  # std added to latents that are read (theirs is 1), not to targets
    text_weight: float = Field(0.2, ge=0)  # of the cross-entropy of texts
    seed: int = 0


def require_documents(generator: SeqGenerator) -> None:
    """Raise ConfigError for a model that cannot read documents."""
    config = generator.config
    kind = config.sequence.kind
    if kind != "next_token":
        raise ConfigError(f"sequence.kind={kind}: documents are read in sequences of kind next_token")
    if config.writer != "shared" or generator.caption_levels:
        raise ConfigError(
            f"writer={config.writer}, caption_levels={generator.caption_levels}: in a document the words between two "
            "pictures are read and written at once; set writer=shared and caption_levels=0"
        )


class DocumentObjective(nn.Module):
    """`latents` is the spec of the folder that feeds the training, `source` its name."""

    def __init__(
        self,
        generator: SeqGenerator,
        config: DocumentObjectiveConfig,
        latents: LatentSpec,
        source: str = "the latent folder",
    ) -> None:
        """Raises ConfigError for a model that cannot read documents, MismatchError for other latents."""
        super().__init__()
        generator.spec.require_same(latents, "the sequence model", source)
        require_documents(generator)
        _require_trained(generator)
        self.generator, self.config = generator, config

    def checkpointed_blocks(self) -> list[nn.Module]:
        """What activation checkpointing may compute twice."""
        return [module for module in self.modules() if isinstance(module, Block)]

    def muon_excluded(self) -> set[str]:
        return excluded_from_muon(self)

    def forward(self, batch: DocumentBatch) -> dict[str, Tensor]:
        """-> "loss", the head's own ("flow_loss"), and "text_loss"."""
        generator, config = self.generator, self.config
        limit = generator.config.max_text_tokens
        if batch.text_ids.shape[2] > limit:
            raise ConfigError(f"texts of up to {batch.text_ids.shape[2]} tokens; raise max_text_tokens={limit}")
        draws = Draws(config.seed, batch.epoch, batch.index)
        rows = rows_of_batch(batch, generator.spec, draws.uniform("condition") < config.condition_dropout)
        noise = None
        if config.input_noise:
            noise = config.input_noise * draws.normal("input noise", tuple(rows.latents.shape[1:]))
        slots = document_slots(generator.backbone, rows, noise)
        texts, images = slots.by_row(generator.backbone(slots.x, slots.positions, slots.mask))
        image = self._image_loss(images, rows, draws)
        logits = generator.backbone.text_logits(texts.flatten(1, 2))
        text = text_loss(logits, slots.targets.flatten(1)) / (len(batch) * (1.0 - config.condition_dropout))
        return {
            "loss": image + config.text_weight * text,
            f"{generator.head.kind}_loss": image.detach(),
            "text_loss": text.detach(),
        }

    def _image_loss(self, h: Tensor, rows: DocumentRows, draws: Draws) -> Tensor:
        """h (B, M, K, W) -> the mean over a document's pictures, then over documents."""
        chosen, count = writing_rows(rows.picture.flatten())
        number = torch.arange(rows.picture.shape[1], device=h.device).repeat(len(h))
        document = torch.arange(len(h), device=h.device).repeat_interleave(rows.picture.shape[1])
        own = Draws(draws.seed, draws.epoch[document] + (number << 32), draws.index[document])
        own = Draws(own.seed, own.epoch[chosen], own.index[chosen])
        each = self.generator.head.loss(h.flatten(0, 1)[chosen], rows.latents.flatten(0, 1)[chosen], own).mean(1)
        share = 1.0 / rows.picture.sum(1).clamp(min=1)  # (B,), of one picture
        counted = torch.arange(len(chosen), device=h.device) < count  # the others fill up
        return (each * share[document[chosen]] * counted).sum() / len(h)


def _require_trained(generator: SeqGenerator) -> None:
    """Raise ConfigError for what no training on documents teaches, so that no model is taken to know it."""
    names = ("prefix_dropout", "caption_prefixes", "caption_dropout")
    if asked := [name for name in names if getattr(generator.sequence, name)]:
        raise ConfigError(f"sequence.{', sequence.'.join(asked)}: documents do not teach this; leave it out")


def rows_of_batch(batch: DocumentBatch, spec: LatentSpec, alone: Tensor) -> DocumentRows:
    """As the loader gives them; of rows and texts as many as the longest has."""
    count = int(batch.rows.max())
    place = torch.arange(count, device=batch.rows.device)
    longest = int((batch.text_ids != PAD).sum(2).max().clamp(min=1))
    there, picture = place < batch.rows[:, None], place < batch.pictures[:, None]
    raw = batch.latents[:, :count].float()
    latents = spec.normalise(raw.flatten(0, 1)).view_as(raw)
    return DocumentRows(batch.text_ids[:, :count, :longest], latents, there, picture, alone)
