"""The bottlenecks by kind. A new one is a file beside this one, and its line in both places below."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Tag

from seq_tokenizer.bottlenecks.base import Bottleneck
from seq_tokenizer.bottlenecks.fsq import FsqBottleneck, FsqConfig
from seq_tokenizer.bottlenecks.kl import KlBottleneck, KlConfig
from seq_tokenizer.bottlenecks.lossless import AsIs, AsIsConfig
from seq_tokenizer.bottlenecks.none import NoBottleneck, NoConfig
from seq_tokenizer.bottlenecks.pyramid import PyramidBottleneck, PyramidConfig
from seq_tokenizer.bottlenecks.residual_vq import ResidualVqBottleneck, ResidualVqConfig
from seq_tokenizer.bottlenecks.rms import RmsBottleneck, RmsConfig
from seq_tokenizer.bottlenecks.vq import VqBottleneck, VqConfig
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import by_kind

BottleneckConfig = Annotated[
    Annotated[RmsConfig, Tag("rms")]
    | Annotated[KlConfig, Tag("kl")]
    | Annotated[NoConfig, Tag("none")]
    | Annotated[AsIsConfig, Tag("lossless")]
    | Annotated[VqConfig, Tag("vq")]
    | Annotated[FsqConfig, Tag("fsq")]
    | Annotated[ResidualVqConfig, Tag("residual_vq")]
    | Annotated[PyramidConfig, Tag("pyramid")],
    by_kind("rms"),
]
BOTTLENECKS: dict[str, Any] = {
    "rms": RmsBottleneck,
    "kl": KlBottleneck,
    "none": NoBottleneck,
    "lossless": AsIs,
    "vq": VqBottleneck,
    "fsq": FsqBottleneck,
    "residual_vq": ResidualVqBottleneck,
    "pyramid": PyramidBottleneck,
}


def build_bottleneck(config: BottleneckConfig, shape: TokenizerShape) -> Bottleneck:
    """The bottleneck of `config.kind` with fresh weights."""
    return BOTTLENECKS[config.kind](config, shape)


def features_of(config: BottleneckConfig, shape: TokenizerShape) -> tuple[int, int] | None:
    """Rows and columns of the features that it makes all latents of; None: it makes each latent of one token."""
    return config.features(shape) if isinstance(config, PyramidConfig) else None
