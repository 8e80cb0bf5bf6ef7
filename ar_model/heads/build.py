"""From a head's settings to the head."""

from __future__ import annotations

from ar_model.config import FlowHeadConfig
from ar_model.heads.base import Head
from ar_model.heads.flow import FlowHead


def build_head(config: FlowHeadConfig, width: int, dim: int) -> Head:
    """`width` of the hidden states, `dim` channels of a latent."""
    return FlowHead(config, width, dim)
