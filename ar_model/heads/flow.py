"""Rectified-flow head: an MLP on a noisy latent, modulated (AdaLN) by the flow time t and the hidden state h.

After MAR's head (Li et al. 2024, arXiv:2406.11838), with two differences that make it cheap:
- the modulation is a sum of a part of t and a part of h, so in training each is computed once, for R times of
  a sample and for K tokens, not for all R K pairs, and in sampling the part of t once for all tokens;
- the R times are shared by the tokens of a sample and stratified; the noise is every token's own.

Shapes: B samples, R repeats, K latents of D channels, W width of the Transformer, C width of the head,
M = (3 depth + 2) C modulations.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ar_model.heads.base import Head, Sampler
from seqtok_core.foundation.config import Config
from seqtok_core.layers import flow
from seqtok_core.layers.embed import time_features
from seqtok_core.layers.randomness import Draws

_TIME_FEATURES = 64


class FlowHeadConfig(Config):
    """A small MLP that turns noise into the next latent."""

    kind: Literal["flow"] = "flow"
    width: int = Field(192, ge=8)
    depth: int = Field(3, ge=1)
    repeats: int = Field(4, ge=1)  # flow times per token and training step: they share the Transformer's pass
    prediction: Literal["velocity", "data"] = "velocity"
    time_mean: float = 0.0  # of the logit of t in training; above 0 means more often near the data
    time_std: float = Field(1.0, gt=0)


class FlowSampleConfig(Config):
    """How the noise is led to a latent."""

    steps: int = Field(10, ge=1)  # of the solver, per token
    solver: Literal["euler", "heun"] = "euler"


class FlowHead(Head):
    kind = "flow"
    MUON_EXCLUDED = ("latent_in.weight", "time_in.weight", "out.weight")

    def __init__(self, config: FlowHeadConfig, width: int, dim: int) -> None:
        super().__init__()
        self.config, self.dim = config, dim
        c, modulations = config.width, (3 * config.depth + 2) * config.width
        self.latent_in = nn.Linear(dim, c)
        self.time_in = nn.Linear(_TIME_FEATURES, c)
        self.time_out = nn.Linear(c, modulations)
        self.state_out = nn.Linear(width, modulations, bias=False)
        self.norm = nn.LayerNorm(c, elementwise_affine=False)
        self.hidden = nn.ModuleList(nn.Linear(c, c) for _ in range(config.depth))
        self.back = nn.ModuleList(nn.Linear(c, c) for _ in range(config.depth))
        self.out = nn.Linear(c, dim)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for gentle in (self.time_out, self.state_out):  # modulations start small
            nn.init.normal_(gentle.weight, std=0.2 * gentle.in_features**-0.5)
        c = self.config.width
        for i in range(self.config.depth):
            nn.init.constant_(self.time_out.bias[(3 * i + 2) * c : (3 * i + 3) * c], 0.5)  # gates half open
        nn.init.zeros_(self.out.weight)

    def time_modulation(self, t: Tensor) -> Tensor:
        """t (*) -> (*, M)."""
        features = time_features(t.flatten(), _TIME_FEATURES).to(self.time_in.weight.dtype)
        return self.time_out(F.silu(self.time_in(features))).unflatten(0, t.shape)

    def network(self, x_t: Tensor, of_time: Tensor, of_state: Tensor) -> Tensor:
        """x_t (*, D) and the two parts of the modulation (*, M), broadcast against each other -> (*, D)."""
        parts = 3 * self.config.depth + 2
        m = [a + b for a, b in zip(of_time.chunk(parts, -1), of_state.chunk(parts, -1), strict=True)]
        x = self.latent_in(x_t.to(self.latent_in.weight.dtype))
        for i, (hidden, back) in enumerate(zip(self.hidden, self.back, strict=True)):
            shift, scale, gate = m[3 * i : 3 * i + 3]
            y = torch.addcmul(shift, self.norm(x), 1 + scale)
            x = torch.addcmul(x, gate, back(F.silu(hidden(y))))
        return self.out(torch.addcmul(m[-2], self.norm(x), 1 + m[-1]))

    def loss(self, h: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """h (B, K, W), z (B, K, D) -> (B, K): mean over the R times and noises of each token."""
        repeats, config = self.config.repeats, self.config
        u = draws.uniform("flow/time", (repeats,))
        t = flow.logit_normal_times(u, config.time_mean, config.time_std)  # (B, R)
        noise = draws.normal("flow/noise", (repeats, *z.shape[1:]))  # (B, R, K, D)
        data, t4 = z[:, None].float(), t[:, :, None, None]
        x_t = flow.interpolate(noise, data, t4)
        output = self.network(x_t, self.time_modulation(t)[:, :, None], self.state_out(h)[:, None])
        velocity = flow.to_velocity(output.float(), x_t, t4, config.prediction)
        return flow.flow_loss(velocity, noise, data).mean(1)

    def sampler(self, temperature: float, config: FlowSampleConfig) -> Sampler:
        times = flow.time_grid(config.steps, self.out.weight.device)
        of_time = self.time_modulation(times)  # (S + 1, M), for all tokens
        grid, solve = times.tolist(), flow.SOLVERS[config.solver]

        def sample(h: Tensor, free: Tensor | None, scale: float, draws: Draws, place: int) -> Tensor:
            of_state = self.state_out(h if free is None else torch.cat([h, free]))

            def velocity(x: Tensor, at: int) -> Tensor:
                x_t = x if free is None else torch.cat([x, x])
                output = self.network(x_t, of_time[at], of_state).float()
                v = flow.to_velocity(output, x_t, grid[at], self.config.prediction)
                if free is None:
                    return v
                with_prompt, without = v.chunk(2)
                return flow.guide(with_prompt, without, scale)

            noise = draws.normal(f"sample/{place}", (self.dim,))
            return solve(velocity, temperature * noise, times)

        return sample
