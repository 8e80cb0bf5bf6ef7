"""Settings of the sequence model, saved with its weights, and of its training objective."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ar_model.backbone import TransformerShape
from ar_model.heads.build import HeadConfig
from ar_model.heads.flow import FlowHeadConfig
from ar_model.sequences.build import SequenceConfig
from ar_model.sequences.next_token import NextTokenConfig
from seqtok_core.foundation.config import Config, fill_preset

# Transformers: S as in DiT (arXiv:2212.09748), B to 3B as in LlamaGen (arXiv:2406.06525); flow heads of B, L and XL as
# MAR's B, L and H (arXiv:2406.11838), the last for what is larger. tiny is the demo's.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 192, "depth": 4, "heads": 4, "head": {"kind": "flow", "width": 192, "depth": 3}},
    "S": {"width": 384, "depth": 12, "heads": 6, "head": {"kind": "flow", "width": 512, "depth": 3}},
    "B": {"width": 768, "depth": 12, "heads": 12, "head": {"kind": "flow", "width": 1024, "depth": 6}},
    "L": {"width": 1024, "depth": 24, "heads": 16, "head": {"kind": "flow", "width": 1280, "depth": 8}},
    "XL": {"width": 1280, "depth": 36, "heads": 20, "head": {"kind": "flow", "width": 1536, "depth": 12}},
    "XXL": {"width": 1536, "depth": 48, "heads": 24, "head": {"kind": "flow", "width": 1536, "depth": 12}},
    "3B": {"width": 3200, "depth": 24, "heads": 32, "head": {"kind": "flow", "width": 1536, "depth": 12}},
}


class GeneratorConfig(TransformerShape):
    """The causal Transformer, its sequence and its head. Sizes of latents and vocabulary come from the data.

    `preset` stands for the Transformer's width, depth and heads, and for width and depth of a flow head; each of
    them, given beside it, wins.
    """

    preset: Literal["tiny", "S", "B", "L", "XL", "XXL", "3B"] | None = None
    sequence: SequenceConfig = NextTokenConfig()
    head: HeadConfig = FlowHeadConfig()

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        return fill_preset(values, PRESETS)


class GeneratorObjectiveConfig(Config):
    """What one training step asks of the model."""

    text_to_image: float = Field(1.0, ge=0, le=1)  # share of samples drawn from their text; the rest write it
    condition_dropout: float = Field(0.1, ge=0, le=1)  # share of prompts left empty, for guidance
    finest_share: float = Field(0.8, ge=0, le=1)  # of captions at the finest level; the rest evenly coarser
    input_noise: float = Field(0.0, ge=0)  # std added to latents that are read (theirs is 1), not to targets
    # Drawing with a prompt is taught as guidance of this scale would draw, so that sampling needs none: one evaluation
    # a step instead of two, at a price in variety as guidance has it. 1: what the data say.
    guided_targets: float = Field(1.0, ge=1)
    # Share of those with a prompt that are drawn anew from their own embedding by the tokenizer, one token in place of
    # the words (RecA, arXiv:2509.07295): for training on from a model that draws, see docs/method.md.
    rebuild_share: float = Field(0.0, ge=0, le=1)
    text_weight: float = Field(0.2, ge=0)  # of the cross-entropy of captions written after the image
    prompt_weight: float = Field(0.0, ge=0)  # of the cross-entropy of prompts before the image
    seed: int = 0
