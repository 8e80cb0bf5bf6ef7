"""The heads by kind. A new one is a file beside this one and its line in each place below."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Tag

from ar_model.heads.base import Head
from ar_model.heads.categorical import CategoricalHead, CategoricalHeadConfig, CategoricalSampleConfig
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
from ar_model.heads.mean_flow import MeanFlowHead, MeanFlowHeadConfig, MeanFlowSampleConfig
from seq_tokenizer.latents import LatentSpec
from seqtok_core.foundation.config import Config, by_kind

HeadConfig = Annotated[
    Annotated[FlowHeadConfig, Tag("flow")]
    | Annotated[MeanFlowHeadConfig, Tag("mean_flow")]
    | Annotated[DiffusionHeadConfig, Tag("diffusion")]
    | Annotated[MseHeadConfig, Tag("mse")]
    | Annotated[GaussianHeadConfig, Tag("gaussian")]
    | Annotated[MixtureHeadConfig, Tag("mixture")]
    | Annotated[CategoricalHeadConfig, Tag("categorical")],
    by_kind("flow"),
]
HEADS: dict[str, Any] = {
    "flow": FlowHead,
    "mean_flow": MeanFlowHead,
    "diffusion": DiffusionHead,
    "mse": MseHead,
    "gaussian": GaussianHead,
    "mixture": MixtureHead,
    "categorical": CategoricalHead,
}


class HeadSampleConfig(Config):
    """What each kind of head is told when it draws."""

    flow: FlowSampleConfig = FlowSampleConfig()
    mean_flow: MeanFlowSampleConfig = MeanFlowSampleConfig()
    diffusion: DiffusionSampleConfig = DiffusionSampleConfig()
    mse: DirectSampleConfig = DirectSampleConfig()
    gaussian: DirectSampleConfig = DirectSampleConfig()
    mixture: DirectSampleConfig = DirectSampleConfig()
    categorical: CategoricalSampleConfig = CategoricalSampleConfig()


def build_head(config: HeadConfig, width: int, spec: LatentSpec) -> Head:
    """The head of `config.kind` with fresh weights: `width` of the hidden states."""
    if isinstance(config, CategoricalHeadConfig):
        return CategoricalHead(config, width, spec)
    return HEADS[config.kind](config, width, spec.dim)
