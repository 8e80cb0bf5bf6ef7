"""Heads that say the next latent in one pass: its mean, a Gaussian, or a mixture of Gaussians.

`mse` is Emu2's regression (Sun et al. 2023, arXiv:2312.13286), `mixture` GIVT's head (Tschannen et al. 2023,
arXiv:2312.02116). They are kept for comparison: the mean of two possible latents is neither of them.

Shapes: B samples, K latents of D channels, W width of the Transformer, C width of the head, G Gaussians.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ar_model.heads.base import Head, Sampler, stream
from seqtok_core.foundation.config import Config
from seqtok_core.layers.choice import choose
from seqtok_core.layers.flow import guide
from seqtok_core.layers.randomness import Draws

_LOG_STD = (-6.0, 3.0)  # of standardised latents; outside only a diverging model looks


class DirectHeadConfig(Config):
    """Sizes of the MLP."""

    width: int = Field(192, ge=8)
    depth: int = Field(3, ge=1)


class MseHeadConfig(DirectHeadConfig):
    """The mean of what the next latent can be."""

    kind: Literal["mse"] = "mse"


class GaussianHeadConfig(DirectHeadConfig):
    """Mean and spread of every channel."""

    kind: Literal["gaussian"] = "gaussian"


class MixtureHeadConfig(DirectHeadConfig):
    """Several Gaussians and their shares."""

    kind: Literal["mixture"] = "mixture"
    components: int = Field(16, ge=1)


class DirectSampleConfig(Config):
    """Nothing but guidance and temperature can be set."""


class DirectHead(Head):
    """A residual MLP on the hidden state."""

    MUON_EXCLUDED: tuple[str, ...] = ("out.weight",)

    def __init__(self, config: DirectHeadConfig, width: int, dim: int, outputs: int) -> None:
        super().__init__()
        self.dim, c = dim, config.width
        self.state_in = nn.Linear(width, c)
        self.norms = nn.ModuleList(nn.LayerNorm(c, bias=False) for _ in range(config.depth))
        self.hidden = nn.ModuleList(nn.Linear(c, c) for _ in range(config.depth))
        self.back = nn.ModuleList(nn.Linear(c, c) for _ in range(config.depth))
        self.norm_out = nn.LayerNorm(c, bias=False)
        self.out = nn.Linear(c, outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.out.weight)

    def network(self, h: Tensor) -> Tensor:
        """(*, W) -> (*, outputs) float32."""
        x = self.state_in(h)
        for norm, hidden, back in zip(self.norms, self.hidden, self.back, strict=True):
            x = x + back(F.silu(hidden(norm(x))))
        return self.out(self.norm_out(x)).float()


class MseHead(DirectHead):
    kind = "mse"

    def __init__(self, config: MseHeadConfig, width: int, dim: int) -> None:
        super().__init__(config, width, dim, dim)

    def loss(self, h: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """Squared error, mean over channels."""
        return (self.network(h) - z.float()).square().mean(-1)

    def sampler(self, temperature: float, config: DirectSampleConfig) -> Sampler:
        """Draws nothing: temperature has no part in it."""

        def sample(h: Tensor, free: Tensor | None, scale: float, draws: Draws, place: int | Tensor) -> Tensor:
            return _guided(self.network, h, free, scale)

        return sample


class GaussianHead(DirectHead):
    kind = "gaussian"

    def __init__(self, config: GaussianHeadConfig, width: int, dim: int) -> None:
        super().__init__(config, width, dim, 2 * dim)

    def loss(self, h: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """Negative log likelihood in nats, mean over channels."""
        mean, log_std = self.network(h).chunk(2, -1)
        return -_log_density(z.float(), mean, log_std).mean(-1)

    def sampler(self, temperature: float, config: DirectSampleConfig) -> Sampler:
        """Guidance moves the mean; the spread is that under the prompt."""

        def sample(h: Tensor, free: Tensor | None, scale: float, draws: Draws, place: int | Tensor) -> Tensor:
            log_std = self.network(h)[:, self.dim :].clamp(*_LOG_STD)
            mean = _guided(lambda state: self.network(state)[:, : self.dim], h, free, scale)
            return mean + temperature * log_std.exp() * draws.normal(stream(place), (self.dim,))

        return sample


class MixtureHead(DirectHead):
    kind = "mixture"

    def __init__(self, config: MixtureHeadConfig, width: int, dim: int) -> None:
        super().__init__(config, width, dim, config.components * (1 + 2 * dim))
        self.components = config.components
        with torch.no_grad():  # apart from each other, or all would stay alike
            self.out.bias[self.components : self.components * (1 + dim)].normal_(std=1.0)

    def parts(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(*, W) -> logits (*, G), means and log stds (*, G, D)."""
        g, d = self.components, self.dim
        logits, mean, log_std = self.network(h).split([g, g * d, g * d], -1)
        return logits, mean.unflatten(-1, (g, d)), log_std.unflatten(-1, (g, d))

    def loss(self, h: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """Negative log likelihood in nats, divided by the number of channels."""
        logits, mean, log_std = self.parts(h)
        each = _log_density(z.float()[..., None, :], mean, log_std).sum(-1)
        return -(logits.log_softmax(-1) + each).logsumexp(-1) / self.dim

    def sampler(self, temperature: float, config: DirectSampleConfig) -> Sampler:
        """Guidance moves the shares and the means, each Gaussian compared with itself; temperature scales spreads."""

        def sample(h: Tensor, free: Tensor | None, scale: float, draws: Draws, place: int | Tensor) -> Tensor:
            logits, mean, log_std = self.parts(h)
            if free is not None:
                without = self.parts(free)
                logits = guide(logits.log_softmax(-1), without[0].log_softmax(-1), scale)
                mean = guide(mean, without[1], scale)
            chosen = choose(logits, draws.uniform(f"{stream(place)}/component", (self.components,)))
            row = torch.arange(len(chosen), device=chosen.device)
            spread = log_std[row, chosen].clamp(*_LOG_STD).exp()
            return mean[row, chosen] + temperature * spread * draws.normal(stream(place), (self.dim,))

        return sample


def _log_density(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Of every channel alone."""
    log_std = log_std.clamp(*_LOG_STD)
    return -0.5 * ((z - mean) * (-log_std).exp()).square() - log_std - 0.5 * math.log(2 * math.pi)


def _guided(mean_of: Callable[[Tensor], Tensor], h: Tensor, free: Tensor | None, scale: float) -> Tensor:
    return mean_of(h) if free is None else guide(mean_of(h), mean_of(free), scale)
