"""Channels as they are: nothing bounds them. The reference for what a bottleneck costs.

Shapes: B images, K tokens, W width, D channels.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from seq_tokenizer.bottlenecks.base import Bottled, Bottleneck
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.layers.randomness import Draws


class NoConfig(Config):
    kind: Literal["none"] = "none"


class NoBottleneck(Bottleneck):
    """Linear to D channels."""

    def __init__(self, config: NoConfig, shape: TokenizerShape) -> None:
        super().__init__()
        self.project = nn.Linear(shape.width, shape.latent_dim)

    def forward(self, h: Tensor, draws: Draws | None) -> Bottled:
        return Bottled(self.project(h).float(), None, math.inf, {})

    def bits(self, length: int) -> float:
        return math.inf
