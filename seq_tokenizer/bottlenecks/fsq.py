"""Each channel is rounded to a few levels (Mentzer et al. 2023, arXiv:2309.15505), by vector-quantize-pytorch: a
codebook without a codebook. Shapes: B images, K tokens, D channels.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from seq_tokenizer.bottlenecks.discrete import DiscreteBottleneck, vector_quantize_pytorch
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError


class FsqConfig(Config):
    kind: Literal["fsq"] = "fsq"
    levels: tuple[Annotated[int, Field(ge=3)], ...] = (7, 5, 5, 5, 5)  # of each channel; V is their product, 4375


class FsqBottleneck(DiscreteBottleneck):
    def __init__(self, config: FsqConfig, shape: TokenizerShape) -> None:
        if len(config.levels) != shape.latent_dim:
            raise ConfigError(
                f"bottleneck.levels={list(config.levels)} are {len(config.levels)} channels, "
                f"latent_dim={shape.latent_dim}; give one number of levels for each channel"
            )
        super().__init__(shape)
        self.codebook_size = math.prod(config.levels)
        with torch.device("cpu"):  # it reads its own tables while it is built, which hold no values on the meta device
            self.quantizer = vector_quantize_pytorch().FSQ(levels=list(config.levels))

    def quantise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        z, codes = self.quantizer(x)
        return z, codes.long(), None

    def look_up(self, codes: Tensor) -> Tensor:
        return self.quantizer.indices_to_codes(codes).float()
