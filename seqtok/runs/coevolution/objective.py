"""What a tokenizer and a sequence model learn together: the sum of what each learns alone, and how far the second
reaches into the first.

The sequence model reads latents and leads to latents. Those that it leads to are never moved by it, or the easiest
sequence would be one that says nothing; those that it reads may be (`reach`). Alone that harms both (EOSTok, see
docs/method.md), so the latents that it expects can be decoded and held against the picture (`decoded_weight`).
Shapes: B images, K latents of D channels, W width.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ar_model import GeneratorObjective, GeneratorObjectiveConfig
from ar_model.heads.flow import FlowHead
from data_pipelines.samples import ImageTextBatch
from seq_tokenizer import SeqTokenizer, TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.text.gather import ranks, sum_of_all_ranks
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws

_LEAST_STD = 1e-3  # of a channel that says nothing


class CoevolutionConfig(Config):
    """What each learns, and how they meet."""

    tokenizer: TokenizerTrainingConfig = TokenizerTrainingConfig()
    generator: GeneratorObjectiveConfig = GeneratorObjectiveConfig()
    sequence_weight: Annotated[float, Field(ge=0)] = 1.0
    # Share of the sequence model's gradient that goes on through the latents it reads into the encoder. 0: it learns
    # beside the tokenizer and changes nothing there.
    reach: Annotated[float, Field(ge=0, le=1)] = 0.0
    # Weight of the squared error of pictures decoded from the latents that the sequence model expects, each from one
    # noisy look at it and the true latents before it.
    decoded_weight: Annotated[float, Field(ge=0)] = 0.0
    # Latents are standardised by running statistics: what of the older ones is kept from one micro-batch to the next.
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.99

    @model_validator(mode="after")
    def _embeddings_stay(self) -> Self:
        if self.generator.rebuild_share:
            raise ValueError(
                "generator.rebuild_share: embeddings that still change are no prompts; use it afterwards, in a "
                "training of the sequence model alone"
            )
        return self


class CoevolutionObjective(nn.Module):
    """Statistics of the latents run along in the tokenizer's own buffers."""

    def __init__(self, tokenizer: TokenizerObjective, generator: GeneratorObjective, config: CoevolutionConfig) -> None:
        """Raises ConfigError for parts that cannot be trained together."""
        super().__init__()
        self.tokenizer, self.generator, self.config = tokenizer, generator, config
        self._require_parts()

    def _require_parts(self) -> None:
        config, tokenizer, generator = self.config, self.tokenizer.tokenizer, self.generator.generator
        if tokenizer.bottleneck.codebook_size is not None:
            raise ConfigError(
                f"model.tokenizer.bottleneck.kind={tokenizer.config.bottleneck.kind}: both are trained on continuous "
                "latents; use rms"
            )
        if config.reach and generator.sequence.denoises:
            raise ConfigError(
                f"objective.reach={config.reach:g}: a sequence of kind {generator.config.sequence.kind} reads what it "
                "leads to, so that its targets would move with it; use next_token or scales, or reach=0"
            )
        if config.decoded_weight and (not isinstance(generator.head, FlowHead) or tokenizer.decoder.generative):
            raise ConfigError(
                f"objective.decoded_weight={config.decoded_weight:g}: needs a flow head, which can say what latent it "
                "expects, and a decoder that makes a picture in one pass; set decoded_weight=0"
            )

    def checkpointed_blocks(self) -> list[nn.Module]:
        """What activation checkpointing may compute twice."""
        return [*self.tokenizer.checkpointed_blocks(), *self.generator.checkpointed_blocks()]

    def muon_excluded(self) -> set[str]:
        own = {f"tokenizer.{name}" for name in self.tokenizer.muon_excluded()}
        return own | {f"generator.{name}" for name in self.generator.muon_excluded()}

    def own_rates(self) -> dict[str, dict[str, Any]]:
        return {f"tokenizer.{name}": rates for name, rates in self.tokenizer.own_rates().items()}

    def forward(self, batch: ImageTextBatch) -> dict[str, Tensor]:
        """-> "loss", "tokenizer_loss" and "sequence_loss", the scalars of both, and "latent_rank": along how many
        directions the latents of a batch spread, which falls first where they collapse."""
        config, tokenizer = self.config, self.tokenizer.tokenizer
        losses, latents = self.tokenizer.with_latents(batch)
        if self.training:
            follow(tokenizer, latents.detach(), config.memory)
        std = tokenizer.latent_std.clone()  # as they are now: the buffers move before the gradient comes back
        mean = tokenizer.latent_mean.clone()
        z = (latents - mean) / std
        targets = z.detach()
        read = targets + config.reach * (z - targets) if config.reach else targets
        told, states = self.generator.of_latents(batch, read, targets)
        total = losses["loss"] + config.sequence_weight * told["loss"]
        shown = {"tokenizer_loss": losses["loss"].detach(), "sequence_loss": told["loss"].detach()}
        if config.decoded_weight:
            error = self._decoded_error(batch, states, targets, mean, std)
            total = total + config.decoded_weight * error
            shown["expected_loss"] = error.detach()
        rest = {name: value for part in (losses, told) for name, value in part.items() if name != "loss"}
        return {"loss": total, **rest, **shown, "latent_rank": spread_rank(targets)}

    def _decoded_error(
        self, batch: ImageTextBatch, states: Tensor, targets: Tensor, mean: Tensor, std: Tensor
    ) -> Tensor:
        """Mean square, of pictures from what the sequence model takes every latent for."""
        head, pixels = self.generator.generator.head, batch.pixels()
        assert isinstance(head, FlowHead)  # by _require_parts
        draws = Draws(self.config.generator.seed, batch.epoch, batch.index)
        expected = head.estimate(states, targets, draws) * std + mean
        decoded = self.tokenizer.tokenizer.decode(expected, size=(pixels.shape[-2], pixels.shape[-1]))
        return (decoded.float() - pixels).square().mean()


@torch.no_grad()
def follow(tokenizer: SeqTokenizer, latents: Tensor, memory: float) -> None:
    """Move the tokenizer's statistics towards those of latents (B, K, D), those of all processes together."""
    sums = torch.stack([latents.float().sum(0), latents.float().square().sum(0)])
    mean, square = sum_of_all_ranks(sums) / (len(latents) * ranks())
    variance = (square - mean.square()).clamp(min=_LEAST_STD**2)
    tokenizer.latent_std.copy_(tokenizer.latent_std.square().lerp(variance, 1.0 - memory).sqrt())
    tokenizer.latent_mean.lerp_(mean, 1.0 - memory)


@torch.no_grad()
def spread_rank(z: Tensor) -> Tensor:
    """(B, K, D) -> the participation ratio of the spread, (sum of eigenvalues)^2 / sum of their squares of the
    covariance: from 1, all along one line, to at most B - 1."""
    rows = z.flatten(1).float()
    rows = rows - rows.mean(0)
    gram = rows @ rows.T
    return gram.trace().square() / gram.square().sum().clamp(min=1e-12)
