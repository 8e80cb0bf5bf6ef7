"""The sequences by kind. A new one is a file beside this one and its line in both places below: the type becomes
`Annotated[Annotated[A, Tag("a")] | Annotated[B, Tag("b")], by_kind("a")]`.
"""

from __future__ import annotations

from typing import Any

from ar_model.sequences.base import SequenceVariant
from ar_model.sequences.next_token import NextToken, NextTokenConfig

SequenceConfig = NextTokenConfig
SEQUENCES: dict[str, Any] = {"next_token": NextToken}


def build_sequence(config: SequenceConfig, width: int) -> SequenceVariant:
    """The sequence of `config.kind`, with fresh weights where it has some: `width` of the hidden states."""
    return SEQUENCES[config.kind](config, width)
