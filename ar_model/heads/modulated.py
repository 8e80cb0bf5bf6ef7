"""The network of heads that lead noise to a latent: an MLP on it, modulated (AdaLN) by time and hidden state.

After MAR's head (Li et al. 2024, arXiv:2406.11838), with two differences that make it cheap:
- the modulation is a sum of a part of the time t and a part of h, so in training each is computed once, for R times of
  a sample and for K tokens, not for all R K pairs, and in sampling the part of t once for all tokens;
- the R times are shared by the tokens of a sample and stratified; the noise is every token's own.

Shapes: B samples, R repeats, K latents of D channels, W width of the Transformer, C width of the head,
M = (3 depth + 2) C modulations.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ar_model.heads.base import Head
from seqtok_core.foundation.config import Config
from seqtok_core.layers.embed import time_features

TIME_FEATURES = 64


class ModulatedHeadConfig(Config):
    """Sizes of the network."""

    width: int = Field(192, ge=8)
    depth: int = Field(3, ge=1)
    repeats: int = Field(4, ge=1)  # times per token and training step: they share the Transformer's pass


def start_small(modulation: nn.Linear) -> None:
    nn.init.normal_(modulation.weight, std=0.2 * modulation.in_features**-0.5)


class ModulatedHead(Head):
    """Weights and passes; what the output means is the subclass's own."""

    MUON_EXCLUDED: ClassVar[tuple[str, ...]] = ("latent_in.weight", "time_in.weight", "out.weight")
    FASTEST: ClassVar[float] = 1000.0  # radians of the quickest feature of time

    def __init__(self, config: ModulatedHeadConfig, width: int, dim: int) -> None:
        super().__init__()
        self.dim, self.depth, self.repeats = dim, config.depth, config.repeats
        c, modulations = config.width, (3 * config.depth + 2) * config.width
        self.latent_in = nn.Linear(dim, c)
        self.time_in = nn.Linear(TIME_FEATURES, c)
        self.time_out = nn.Linear(c, modulations)
        self.state_out = nn.Linear(width, modulations, bias=False)
        self.norm = nn.LayerNorm(c, elementwise_affine=False)
        self.hidden = nn.ModuleList(nn.Linear(c, c) for _ in range(config.depth))
        self.back = nn.ModuleList(nn.Linear(c, c) for _ in range(config.depth))
        self.out = nn.Linear(c, dim)
        self._init_weights(c)

    def _init_weights(self, c: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for gentle in (self.time_out, self.state_out):
            start_small(gentle)
        for i in range(self.depth):
            nn.init.constant_(self.time_out.bias[(3 * i + 2) * c : (3 * i + 3) * c], 0.5)  # gates half open
        nn.init.zeros_(self.out.weight)

    def time_modulation(self, t: Tensor) -> Tensor:
        """t (*) in [0, 1] -> (*, M)."""
        features = time_features(t.flatten(), TIME_FEATURES, self.FASTEST).to(self.time_in.weight.dtype)
        return self.time_out(F.silu(self.time_in(features))).unflatten(0, t.shape)

    def network(self, x_t: Tensor, of_time: Tensor, of_state: Tensor) -> Tensor:
        """x_t (*, D) and the two parts of the modulation (*, M), broadcast against each other -> (*, D)."""
        parts = 3 * self.depth + 2
        m = [a + b for a, b in zip(of_time.chunk(parts, -1), of_state.chunk(parts, -1), strict=True)]
        x = self.latent_in(x_t.to(self.latent_in.weight.dtype))
        for i, (hidden, back) in enumerate(zip(self.hidden, self.back, strict=True)):
            shift, scale, gate = m[3 * i : 3 * i + 3]
            y = torch.addcmul(shift, self.norm(x), 1 + scale)
            x = torch.addcmul(x, gate, back(F.silu(hidden(y))))
        return self.out(torch.addcmul(m[-2], self.norm(x), 1 + m[-1]))
