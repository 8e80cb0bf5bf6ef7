"""Diffusion head: the flow head's network trained as a DDPM: MAR's DiffLoss (Li et al. 2024, arXiv:2406.11838).

Ho et al. 2020 (arXiv:2006.11239) with the cosine schedule of Nichol and Dhariwal 2021 (arXiv:2102.09672) and T = 1000;
the network predicts the noise, the variance of a step is that of the posterior. Steps are drawn as the schedulers of
diffusers draw them (spacing "leading").

Shapes: B samples, R repeats, K latents of D channels, W width of the Transformer, S steps, M modulations.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ar_model.heads.base import Sampler, stream
from ar_model.heads.modulated import ModulatedHead, ModulatedHeadConfig
from seqtok_core.foundation.config import Config
from seqtok_core.layers.flow import guide
from seqtok_core.layers.randomness import Draws

TIMES = 1000  # T
_MOST_NOISE = 0.999  # that one step may add


class DiffusionHeadConfig(ModulatedHeadConfig):
    """The network of the flow head, which says what noise a latent holds."""

    kind: Literal["diffusion"] = "diffusion"


class DiffusionSampleConfig(Config):
    """How the noise is taken away."""

    steps: int = Field(100, ge=1, le=TIMES)  # per token, evenly spaced among the 1000 of training
    solver: Literal["ddpm", "ddim"] = "ddpm"  # ddim: no noise on the way (Song et al. 2020, arXiv:2010.02502)


def kept_signal(device: torch.device | None = None) -> Tensor:
    """(T,) float32: alpha bar, the share of the latent's variance that is left after step t."""
    share = [math.cos((t / TIMES + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(TIMES + 1)]
    left, kept = 1.0, []
    for before, after in pairwise(share):
        left *= 1.0 - min(1.0 - after / before, _MOST_NOISE)
        kept.append(left)
    return torch.tensor(kept, device=device)


class DiffusionHead(ModulatedHead):
    kind = "diffusion"

    def loss(self, h: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """h (B, K, W), z (B, K, D) -> (B, K): squared error of the noise, mean over the R times of each token."""
        stratum = torch.arange(self.repeats, device=z.device)
        u = (stratum + draws.uniform("diffusion/time", (self.repeats,))) / self.repeats  # (B, R)
        t = (u * TIMES).long().clamp(max=TIMES - 1)
        kept = kept_signal(z.device)[t][:, :, None, None]
        noise = draws.normal("diffusion/noise", (self.repeats, *z.shape[1:]))  # (B, R, K, D)
        x_t = kept.sqrt() * z[:, None].float() + (1 - kept).sqrt() * noise
        output = self.network(x_t, self.time_modulation(t / TIMES)[:, :, None], self.state_out(h)[:, None])
        return (output.float() - noise).square().mean(-1).mean(1)

    def sampler(self, temperature: float, config: DiffusionSampleConfig) -> Sampler:
        """`temperature` scales the first noise and that of every step."""
        stride = TIMES // config.steps
        times = torch.arange(config.steps).flip(0) * stride
        of_time = self.time_modulation(times.to(self.out.weight.device) / TIMES)  # (S, M), for all tokens
        alpha = [*kept_signal()[times].tolist(), 1.0]

        def sample(h: Tensor, free: Tensor | None, scale: float, draws: Draws, place: int | Tensor) -> Tensor:
            of_state = self.state_out(h if free is None else torch.cat([h, free]))
            x = temperature * draws.normal(stream(place), (self.dim,))
            for step in range(config.steps):
                output = self.network(x if free is None else torch.cat([x, x]), of_time[step], of_state).float()
                noise = output
                if free is not None:
                    with_prompt, without = output.chunk(2)
                    noise = guide(with_prompt, without, scale)
                now, then = alpha[step], alpha[step + 1]
                clean = (x - (1 - now) ** 0.5 * noise) / now**0.5
                if config.solver == "ddim":
                    x = then**0.5 * clean + (1 - then) ** 0.5 * noise
                    continue
                added = 1 - now / then  # the noise of the steps between
                x = then**0.5 * added / (1 - now) * clean + (now / then) ** 0.5 * (1 - then) / (1 - now) * x
                if step + 1 < config.steps:
                    spread = ((1 - then) / (1 - now) * added) ** 0.5
                    x = x + temperature * spread * draws.normal(f"{stream(place)}/{step}", (self.dim,))
            return x

        return sample
