"""A diagonal Gaussian per token, drawn from in training, with a small price on what it says (Kingma and Welling 2013,
arXiv:1312.6114; the weight as small as in latent diffusion, arXiv:2112.10752).

Shapes: B images, K tokens, W width, D channels.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.bottlenecks.base import Bottled, Bottleneck
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.layers.randomness import Draws

_LEAST, _MOST = -12.0, 4.0  # of the logarithm of a variance


class KlConfig(Config):
    """Encoding gives the mean; training draws."""

    kind: Literal["kl"] = "kl"
    weight: Annotated[float, Field(ge=0)] = 1e-3  # of the mean divergence of a channel, in nats


class KlBottleneck(Bottleneck):
    """Linear to D means and D log variances. Its rate is measured, as the divergence from a standard normal."""

    def __init__(self, config: KlConfig, shape: TokenizerShape) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(shape.width, 2 * shape.latent_dim)

    def forward(self, h: Tensor, draws: Draws | None) -> Bottled:
        mean, log_variance = self.project(h).float().chunk(2, -1)
        if draws is None:
            return Bottled(mean, None, math.inf, {})
        log_variance = log_variance.clamp(_LEAST, _MOST)
        nats = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)  # (B, K, D)
        z = mean + (0.5 * log_variance).exp() * draws.normal("latent noise", tuple(mean.shape[1:]))
        bits = nats.detach().sum((1, 2)).mean() / math.log(2)
        return Bottled(z, None, math.inf, {"kl_loss": self.config.weight * nats.mean()}, {"kl_bits": bits}, mean)

    def bits(self, length: int) -> float:
        return math.inf
