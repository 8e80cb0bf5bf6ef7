"""No narrow place at all: what the lossless encoder gives is the latent.

Shapes: B images, K tokens, D channels.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from seq_tokenizer.bottlenecks.base import Bottled, Bottleneck
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.layers.randomness import Draws


class AsIsConfig(Config):
    kind: Literal["lossless"] = "lossless"


class AsIs(Bottleneck):
    def __init__(self, config: AsIsConfig, shape: TokenizerShape) -> None:
        super().__init__()

    def forward(self, h: Tensor, draws: Draws | None) -> Bottled:
        return Bottled(h.float(), None, math.inf, {})

    def bits(self, length: int) -> float:
        return math.inf
