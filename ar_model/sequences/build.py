"""The sequences by kind. A new one is a file beside this one and its line in both places below."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Tag

from ar_model.sequences.base import SequenceVariant
from ar_model.sequences.full_image import FullImage, FullImageConfig
from ar_model.sequences.next_token import NextToken, NextTokenConfig
from ar_model.sequences.noisy_copies import NoisyCopies, NoisyCopiesConfig
from ar_model.sequences.scales import Scales, ScalesConfig
from seq_tokenizer.latents import LatentSpec
from seqtok_core.foundation.config import by_kind

SequenceConfig = Annotated[
    Annotated[NextTokenConfig, Tag("next_token")]
    | Annotated[NoisyCopiesConfig, Tag("noisy_copies")]
    | Annotated[FullImageConfig, Tag("full_image")]
    | Annotated[ScalesConfig, Tag("scales")],
    by_kind("next_token"),
]
SEQUENCES: dict[str, Any] = {
    "next_token": NextToken,
    "noisy_copies": NoisyCopies,
    "full_image": FullImage,
    "scales": Scales,
}


def build_sequence(config: SequenceConfig, width: int, spec: LatentSpec) -> SequenceVariant:
    """The sequence of `config.kind`, with fresh weights where it has some: `width` of the hidden states."""
    return SEQUENCES[config.kind](config, width, spec)
