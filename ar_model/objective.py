"""What the sequence model learns: the next latent given text and earlier latents, and the text around them.

Everything random belongs to a sample (seed, epoch, index). Text losses are means over one sample's tokens,
then a sum over samples divided by how many of them are expected to have text: so a batch cut into
micro-batches, or over ranks, has the loss of the whole.

Shapes: B samples, L caption levels, T text tokens, P = T + 2 prompt slots, K latents of D channels, W width.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ar_model.config import GeneratorObjectiveConfig
from ar_model.generator import SeqGenerator
from ar_model.heads.flow import FlowHead, GuidedTarget
from ar_model.sequences.base import Roles, Slots, trim
from ar_model.sequences.cache import ReadOnce
from ar_model.text.meaning import Meaning
from data_pipelines.captions.tokenizer import BOI, PAD
from data_pipelines.samples import ImageTextBatch, LatentTextBatch
from seq_tokenizer.latents import LatentSpec
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.blocks import Block
from seqtok_core.layers.muon import excluded_from_muon
from seqtok_core.layers.randomness import Draws

_ALL = 1 << 30  # latents told: however many there are


class GeneratorObjective(nn.Module):
    """`latents` is the spec of the folder that feeds the training, `source` its name."""

    def __init__(
        self,
        generator: SeqGenerator,
        config: GeneratorObjectiveConfig,
        latents: LatentSpec,
        source: str = "the latent folder",
        meaning: Meaning | None = None,
    ) -> None:
        """`meaning`: how the tokenizer that made the latents embeds pictures, for `rebuild_share`. Raises ConfigError
        for settings that do not fit each other, MismatchError for other latents."""
        super().__init__()
        generator.spec.require_same(latents, "the sequence model", source)
        sequence, own = generator.sequence, generator.config.writer == "own"
        asked = {name: getattr(sequence, name) for name in ("caption_levels", "caption_prefixes", "caption_dropout")}
        asked |= {"writer=own": own}
        if config.text_to_image == 1.0 and any(asked.values()):
            raise ConfigError(
                "text_to_image=1: no caption is ever written, so that these have no meaning: "
                f"{', '.join(name for name, value in asked.items() if value)}; leave them out, or set text_to_image "
                "to 0.7"
            )
        if config.prompt_weight and config.condition_dropout == 1.0:
            raise ConfigError("prompt_weight: condition_dropout=1 leaves no prompt to learn; set prompt_weight=0")
        if config.guided_targets != 1.0 and not isinstance(generator.head, FlowHead):
            raise ConfigError(f"guided_targets={config.guided_targets:g}: is for the flow head; set guided_targets=1")
        if config.rebuild_share and (meaning is None or not sequence.takes_meaning):
            raise ConfigError(
                f"rebuild_share={config.rebuild_share:g}: needs a sequence of kind next_token or noisy_copies, and the "
                "tokenizer with its text tower, whose embeddings are the prompts: name it with `tokenizer`, or set "
                "rebuild_share=0"
            )
        self.generator, self.config = generator, config
        self.meaning = meaning if config.rebuild_share else None

    def checkpointed_blocks(self) -> list[nn.Module]:
        """What activation checkpointing may compute twice."""
        return [module for module in self.modules() if isinstance(module, Block)]

    def muon_excluded(self) -> set[str]:
        return excluded_from_muon(self)

    def forward(self, batch: LatentTextBatch) -> dict[str, Tensor]:
        """-> "loss", the head's own ("flow_loss"), where they are trained "text_loss" (captions) and "prompt_loss"."""
        z = self.generator.spec.normalise(batch.latents.float())
        return self.of_latents(batch, z, z)[0]

    def of_latents(
        self, batch: ImageTextBatch | LatentTextBatch, z: Tensor, targets: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """z (B, K, D) standardised, the latents that are read, and `targets`, those that they lead to: the same ones,
        perhaps without their gradient -> as `forward`, and the states (B, K, W) that lead to them.

        A sequence that `denoises` reads its targets, and knows no others than z.
        """
        generator, config = self.generator, self.config
        draws = Draws(config.seed, batch.epoch, batch.index)
        text_ids, level = self._text(batch, draws)
        roles, noise = self._roles(draws, level, z.shape[1]), self._input_noise(draws, z)
        if self.meaning is not None:
            meaning = self.meaning(generator.spec.denormalise(z))
            text_ids, roles = self._without_words(meaning, text_ids, roles, draws)
        slots = generator.sequence.arrange(generator.backbone, z, noise, text_ids, roles, draws)
        read = None if slots.captions is None else ReadOnce()
        h = generator.backbone(slots.x, slots.positions, slots.mask, read)
        each = self._image_loss(h, z, targets, noise, roles, slots, draws) if slots.loss is None else slots.loss(h)
        image = each.mean()
        losses = {"loss": image, f"{generator.head.kind}_loss": image.detach()}
        for name, (weight, text) in self._texts(h, slots, read).items():
            losses["loss"] = losses["loss"] + weight * text
            losses[f"{name}_loss"] = text.detach()
        return losses, h[:, slots.latents]

    def _image_loss(
        self, h: Tensor, z: Tensor, targets: Tensor, noise: Tensor | None, roles: Roles, slots: Slots, draws: Draws
    ) -> Tensor:
        """(B, K)."""
        generator, head, scale = self.generator, self.generator.head, self.config.guided_targets
        if not isinstance(head, FlowHead) or scale == 1.0:
            return head.loss(h[:, slots.latents], targets, draws)
        nobody = Roles(torch.zeros_like(roles.prompted))
        text_ids = torch.full((len(z), 1), PAD, device=z.device)
        with torch.no_grad():
            alone = generator.sequence.arrange(generator.backbone, z, noise, text_ids, nobody, draws)
            free = generator.backbone(alone.x, alone.positions, alone.mask)[:, alone.latents]
        guided = GuidedTarget(free, (1.0 - 1.0 / scale) * roles.prompted)
        return head.loss(h[:, slots.latents], targets, draws, guided)

    def _texts(self, h: Tensor, slots: Slots, read: ReadOnce | None) -> dict[str, tuple[float, Tensor]]:
        """Texts that are trained -> their weight and loss, a mean over the samples that are expected to have them.
        `read`: what the first pass kept, where there is a second."""
        config, backbone, found = self.config, self.generator.backbone, {}
        if slots.captions is not None and read is not None:
            logits = backbone.writing.text_logits(slots.captions.states(backbone, read))
            expected = len(h) * (1.0 - config.text_to_image)
            found["text"] = config.text_weight, text_loss(logits, slots.captions.slots.targets) / expected
        if config.prompt_weight and config.text_to_image:
            rows, targets = slots.prompt
            expected = len(h) * config.text_to_image * (1.0 - config.condition_dropout)
            found["prompt"] = config.prompt_weight, text_loss(backbone.text_logits(h[:, rows]), targets) / expected
        return found

    def _input_noise(self, draws: Draws, z: Tensor) -> Tensor | None:
        """(B, K, D), what is added to the latents that are read."""
        if not self.config.input_noise:
            return None
        return self.config.input_noise * draws.normal("input noise", tuple(z.shape[1:]))

    def _roles(self, draws: Draws, level: Tensor, length: int) -> Roles:
        """level (B,) int64, of each sample's text, -1 where it has none: such a sample writes nothing."""
        config, sequence = self.config, self.generator.sequence
        to_image = draws.uniform("direction") < config.text_to_image
        prompted = to_image & (draws.uniform("condition") >= config.condition_dropout)
        writes = hidden = told = None
        if config.text_to_image < 1.0:
            writes = ~to_image & (level >= 0)
        if sequence.prefix_dropout:
            chosen = to_image & ~prompted & (draws.uniform("prefix dropout") < sequence.prefix_dropout)
            hidden = torch.where(chosen, _prefix(draws.uniform("hidden prefix"), length), 0)
        if writes is not None and sequence.caption_prefixes:
            chosen = draws.uniform("caption prefix") < sequence.caption_prefixes
            told = torch.where(chosen, _prefix(draws.uniform("told prefix"), length), _ALL)
        if writes is not None and sequence.caption_dropout:
            blind = draws.uniform("caption dropout") < sequence.caption_dropout
            told = torch.full_like(level, _ALL).where(~blind, 0) if told is None else told.where(~blind, 0)
        return Roles(prompted, writes, level, hidden, told)

    def _without_words(self, meaning: Tensor, text_ids: Tensor, roles: Roles, draws: Draws) -> tuple[Tensor, Roles]:
        """meaning (B, W). <boi> keeps the place of the token that stands for the words: nothing is to foretell it."""
        meant = roles.prompted & (draws.uniform("meaning") < self.config.rebuild_share)
        empty = F.pad(torch.full_like(text_ids[:, :1], BOI), (0, text_ids.shape[1] - 1), value=PAD)
        return torch.where(meant[:, None], empty, text_ids), replace(roles, meant=meant, meaning=meaning)

    def _text(self, batch: ImageTextBatch | LatentTextBatch, draws: Draws) -> tuple[Tensor, Tensor]:
        """-> (B, T) the caption of each sample at the level drawn for it, and (B,) that level; empty and -1 where it
        has none."""
        level = draw_level(batch.level_mask, draws.uniform("level"), self.config.finest_share)
        rows = torch.arange(len(batch), device=level.device)
        text_ids = batch.text_ids[rows, level.clamp(min=0)]
        text_ids = trim(torch.where(level[:, None] < 0, PAD, text_ids))
        levels = self.generator.sequence.caption_levels
        if levels and batch.level_mask.shape[1] > levels:
            raise ConfigError(f"captions of {batch.level_mask.shape[1]} levels; raise caption_levels={levels}")
        limit = self.generator.config.max_text_tokens
        if text_ids.shape[1] > limit:
            raise ConfigError(f"captions of {text_ids.shape[1]} tokens; raise max_text_tokens={limit}")
        return text_ids, level


def text_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """logits (B, n, V), targets (B, n), PAD where nothing is asked -> cross-entropy in nats a token of each sample,
    summed over samples."""
    each = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none", ignore_index=PAD)
    return (each.sum(1) / (targets != PAD).sum(1).clamp(min=1)).sum()


def _prefix(u: Tensor, length: int) -> Tensor:
    """u (B,) uniform in (0, 1) -> (B,) int64 from 1 to K - 1, short ones most, as in the tokenizer's training."""
    return torch.exp(u * math.log(length)).long().clamp(1, max(length - 1, 1))


def draw_level(level_mask: Tensor, u: Tensor, finest_share: float) -> Tensor:
    """level_mask (B, L) bool, u (B,) uniform in (0, 1) -> (B,) level, -1 where a sample has no caption.

    The finest caption with probability `finest_share`, else one of the coarser ones, all alike.
    """
    count = level_mask.sum(1)  # (B,)
    coarser = ((u - finest_share) / max(1.0 - finest_share, 1e-9) * (count - 1)).long()
    coarser = torch.minimum(coarser, (count - 2).clamp(min=0))
    wanted = torch.where((u < finest_share) | (count < 2), count - 1, coarser)
    rank = level_mask.cumsum(1) - 1  # which of the sample's own captions stands at a level
    level = (level_mask & (rank == wanted[:, None])).int().argmax(1)
    return torch.where(count == 0, -1, level)
