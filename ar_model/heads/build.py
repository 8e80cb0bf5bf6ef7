"""The heads by kind. A new one is a file beside this one and its line in each place below."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Tag

from ar_model.heads.base import Head
from ar_model.heads.diffusion import DiffusionHead, DiffusionHeadConfig, DiffusionSampleConfig
from ar_model.heads.direct import (
    DirectSampleConfig,
    GaussianHead,
    GaussianHeadConfig,
    MixtureHead,
    MixtureHeadConfig,
    MseHead,
    MseHeadConfig,
)
from ar_model.heads.flow import FlowHead, FlowHeadConfig, FlowSampleConfig
from seqtok_core.foundation.config import Config, by_kind

HeadConfig = Annotated[
    Annotated[FlowHeadConfig, Tag("flow")]
    | Annotated[DiffusionHeadConfig, Tag("diffusion")]
    | Annotated[MseHeadConfig, Tag("mse")]
    | Annotated[GaussianHeadConfig, Tag("gaussian")]
    | Annotated[MixtureHeadConfig, Tag("mixture")],
    by_kind("flow"),
]
HEADS: dict[str, Any] = {
    "flow": FlowHead,
    "diffusion": DiffusionHead,
    "mse": MseHead,
    "gaussian": GaussianHead,
    "mixture": MixtureHead,
}


class HeadSampleConfig(Config):
    """What each kind of head is told when it draws."""

    flow: FlowSampleConfig = FlowSampleConfig()
    diffusion: DiffusionSampleConfig = DiffusionSampleConfig()
    mse: DirectSampleConfig = DirectSampleConfig()
    gaussian: DirectSampleConfig = DirectSampleConfig()
    mixture: DirectSampleConfig = DirectSampleConfig()


def build_head(config: HeadConfig, width: int, dim: int) -> Head:
    """The head of `config.kind` with fresh weights: `width` of the hidden states, `dim` channels of a latent."""
    return HEADS[config.kind](config, width, dim)
