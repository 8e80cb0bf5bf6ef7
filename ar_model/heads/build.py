"""The heads by kind. A new one is a file beside this one and its line in each place below: the type becomes
`Annotated[Annotated[A, Tag("a")] | Annotated[B, Tag("b")], by_kind("a")]`.
"""

from __future__ import annotations

from typing import Any

from ar_model.heads.base import Head
from ar_model.heads.flow import FlowHead, FlowHeadConfig, FlowSampleConfig
from seqtok_core.foundation.config import Config

HeadConfig = FlowHeadConfig
HEADS: dict[str, Any] = {"flow": FlowHead}


class HeadSampleConfig(Config):
    """What each kind of head is told when it draws."""

    flow: FlowSampleConfig = FlowSampleConfig()


def build_head(config: HeadConfig, width: int, dim: int) -> Head:
    """The head of `config.kind` with fresh weights: `width` of the hidden states, `dim` channels of a latent."""
    return HEADS[config.kind](config, width, dim)
