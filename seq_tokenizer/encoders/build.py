"""Image -> ordered tokens. In every encoder token i is a function of the image and of tokens < i alone.

So encoding with fewer queries gives exactly the first tokens of the whole sequence. Positions of patches are
fixed sine-cosine features of unit scale, in patches from the corner: other sizes and shapes of picture can be
encoded. Query embeddings start at std 1: at the usual 0.02 they drown in the content.

A new encoder is a file beside this one, and its line in both places below.
Sources: TiTok (Yu et al. 2024, arXiv:2406.07550); Q-Former (BLIP-2, Li et al. 2023, arXiv:2301.12597).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Tag

from seq_tokenizer.encoders.base import Encoder
from seq_tokenizer.encoders.grid import GridConfig, GridEncoder
from seq_tokenizer.encoders.lossless import LosslessConfig, LosslessEncoder
from seq_tokenizer.encoders.qformer import QFormerConfig, QFormerEncoder
from seq_tokenizer.encoders.titok import TitokConfig, TitokEncoder
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import by_kind
from seqtok_core.foundation.errors import ConfigError

EncoderConfig = Annotated[
    Annotated[QFormerConfig, Tag("qformer")]
    | Annotated[TitokConfig, Tag("titok")]
    | Annotated[GridConfig, Tag("grid")]
    | Annotated[LosslessConfig, Tag("lossless")],
    by_kind("qformer"),
]
ENCODERS: dict[str, Any] = {
    "qformer": QFormerEncoder,
    "titok": TitokEncoder,
    "grid": GridEncoder,
    "lossless": LosslessEncoder,
}


def require_fit(config: EncoderConfig, shape: TokenizerShape, features: tuple[int, int] | None) -> None:
    """Raise ConfigError where this encoder cannot give the K tokens, or the grid of `features`, that are read."""
    if isinstance(config, GridConfig):
        config.cells(shape, features)
    elif isinstance(config, LosslessConfig):
        config.require_sizes(shape)
    elif features is not None:
        raise ConfigError(
            f"encoder.kind={config.kind} gives tokens without a place; this bottleneck reads a grid of "
            f"{features[0]} x {features[1]} features: set encoder.kind=grid"
        )


def build_encoder(config: EncoderConfig, shape: TokenizerShape, features: tuple[int, int] | None = None) -> Encoder:
    """The encoder of `config.kind` with fresh weights; of K tokens, or of the grid of features that is read."""
    require_fit(config, shape, features)
    if isinstance(config, GridConfig):
        return GridEncoder(config, shape, features)
    return ENCODERS[config.kind](config, shape)
