"""Settings of the sequence model, of its training objective and of sampling. Widths are in channels."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from seqtok_core.foundation.config import Config


class FlowHeadConfig(Config):
    """A small MLP that turns noise into the next latent."""

    kind: Literal["flow"] = "flow"
    width: int = Field(192, ge=8)
    depth: int = Field(3, ge=1)
    repeats: int = Field(4, ge=1)  # flow times per token and training step: they share the Transformer's pass
    prediction: Literal["velocity", "data"] = "velocity"
    time_mean: float = 0.0  # of the logit of t in training; above 0 means more often near the data
    time_std: float = Field(1.0, gt=0)


class GeneratorConfig(Config):
    """The causal Transformer and its head. Sizes of latents and vocabulary come from the data."""

    width: int = Field(192, ge=8)
    depth: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    max_text_tokens: int = Field(64, ge=1)  # of one caption; longer prompts are refused
    head: FlowHeadConfig = FlowHeadConfig()

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} must be a multiple of 2 * heads={2 * self.heads}")
        return self


class GeneratorObjectiveConfig(Config):
    """What one training step asks of the model."""

    text_to_image: float = Field(1.0, ge=0, le=1)  # share of samples drawn from their text; the rest write it
    condition_dropout: float = Field(0.1, ge=0, le=1)  # share of prompts left empty, for guidance
    finest_share: float = Field(0.8, ge=0, le=1)  # of captions at the finest level; the rest evenly coarser
    input_noise: float = Field(0.0, ge=0)  # std added to latents that are read (theirs is 1), not to targets
    text_weight: float = Field(0.2, ge=0)  # of the cross-entropy of captions written after the image
    prompt_weight: float = Field(0.0, ge=0)  # of the cross-entropy of prompts before the image
    seed: int = 0


class SampleConfig(Config):
    """How latents are drawn."""

    guidance: float = Field(3.0, ge=0)  # 1 = follow the prompt as learnt, more = insist on it
    schedule: Literal["constant", "linear"] = "constant"  # linear: guidance rises from 1 at the first token
    temperature: float = Field(1.0, ge=0)  # scale of the initial noise
    steps: int = Field(10, ge=1)  # of the solver, per token
    solver: Literal["euler", "heun"] = "euler"
