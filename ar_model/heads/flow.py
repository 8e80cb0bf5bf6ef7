"""Rectified-flow head: a straight path from noise to the next latent, walked in few steps.

Shapes: B samples, R repeats, K latents of D channels, W width of the Transformer, S steps, M modulations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ar_model.heads.base import Sampler, stream
from ar_model.heads.modulated import ModulatedHead, ModulatedHeadConfig
from seqtok_core.foundation.config import Config
from seqtok_core.layers import flow
from seqtok_core.layers.randomness import Draws


class FlowHeadConfig(ModulatedHeadConfig):
    """A small MLP that turns noise into the next latent."""

    kind: Literal["flow"] = "flow"
    prediction: Literal["velocity", "data"] = "velocity"
    time_mean: float = 0.0  # of the logit of t in training; above 0 means more often near the data
    time_std: float = Field(1.0, gt=0)


@dataclass(frozen=True)
class GuidedTarget:
    """What a velocity needs to learn guidance of scale s: see `flow.guided_target`."""

    free: Tensor  # (B, K, W), states without the prompt
    share: Tensor  # (B,), 1 - 1 / s; 0 where there is no prompt


class PathSampleConfig(Config):
    """How the noise is led to a latent along the straight path."""

    steps: int = Field(6, ge=1)  # per token
    # Guidance counts from this time of the flow on (0 noise, 1 data) and until that one: outside the prompt is followed
    # as learnt, which keeps more variety (Kynkäänniemi et al. 2024, arXiv:2404.07724).
    guided_from: float = Field(0.0, ge=0, le=1)
    guided_until: float = Field(1.0, ge=0, le=1)

    @property
    def walk(self) -> flow.Walk:
        return flow.euler

    def guides(self, t: float) -> bool:
        return self.guided_from <= t <= self.guided_until


class FlowSampleConfig(PathSampleConfig):
    """A solver's steps along the velocity."""

    solver: flow.Solver = "adams_bashforth"  # heun: two evaluations a step

    @property
    def walk(self) -> flow.Walk:
        return flow.SOLVERS[self.solver]


class FlowHead(ModulatedHead):
    kind = "flow"

    def __init__(self, config: FlowHeadConfig, width: int, dim: int) -> None:
        super().__init__(config, width, dim)
        self.config = config

    def loss(self, h: Tensor, z: Tensor, draws: Draws, guided: GuidedTarget | None = None) -> Tensor:
        """h (B, K, W), z (B, K, D) -> (B, K): mean over the R times and noises of each token."""
        config = self.config
        u = draws.uniform("flow/time", (self.repeats,))
        t = flow.logit_normal_times(u, config.time_mean, config.time_std)
        return self.loss_at(h, z, t, draws, guided).mean(1)

    def loss_at(self, h: Tensor, z: Tensor, t: Tensor, draws: Draws, guided: GuidedTarget | None = None) -> Tensor:
        """At chosen times: h (B, K, W), z (B, K, D), t (B, R) -> (B, R, K)."""
        noise = draws.normal("flow/noise", (t.shape[1], *z.shape[1:]))  # (B, R, K, D)
        data, t4 = z[:, None].float(), t[:, :, None, None]
        x_t, of_time = flow.interpolate(noise, data, t4), self.time_modulation(t)[:, :, None]
        velocity = self._velocity(x_t, t4, of_time, h)
        if guided is None:
            return flow.flow_loss(velocity, noise, data)
        with torch.no_grad():
            free = self._velocity(x_t, t4, of_time, guided.free)
            target = flow.guided_target(data - noise, velocity, free, guided.share[:, None, None, None])
        return (velocity - target).square().mean(-1)

    def estimate(self, h: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """h (B, K, W), z (B, K, D) -> (B, K, D) float32: what it takes the latents for, each from one noisy look at it,
        at a time of its own."""
        u = draws.uniform("estimate/time", (z.shape[1], 1))
        t = flow.logit_normal_times(u, self.config.time_mean, self.config.time_std)  # (B, K, 1)
        x_t = flow.interpolate(draws.normal("estimate/noise", tuple(z.shape[1:])), z.float(), t)
        output = self.network(x_t, self.time_modulation(t[..., 0]), self.state_out(h))
        return x_t + (1.0 - t) * flow.to_velocity(output.float(), x_t, t, self.config.prediction)

    def _velocity(self, x_t: Tensor, t: Tensor, of_time: Tensor, h: Tensor) -> Tensor:
        output = self.network(x_t, of_time, self.state_out(h)[:, None])
        return flow.to_velocity(output.float(), x_t, t, self.config.prediction)

    def sampler(self, temperature: float, config: PathSampleConfig, weak: FlowHead | None = None) -> Sampler:
        """`weak`: whose states are handed in as those without the prompt, where a weaker model guides."""
        times = flow.time_grid(config.steps, self.out.weight.device)
        grid = times.tolist()
        own, other = self._velocities(times), None if weak is None else weak._velocities(times)

        def guided(h: Tensor, free: Tensor, scale: float) -> flow.Velocity:
            strong = own(h if other else torch.cat([h, free]))
            weaker = other(free) if other else None

            def velocity(x: Tensor, at: int) -> Tensor:
                if not config.guides(grid[at]):
                    return strong(x, at)
                if weaker is None:  # both at once
                    with_prompt, without = strong(torch.cat([x, x]), at).chunk(2)
                    return flow.guide(with_prompt, without, scale)
                return flow.guide(strong(x, at), weaker(x, at), scale)

            return velocity

        def sample(h: Tensor, free: Tensor | None, scale: float, draws: Draws, place: int | Tensor) -> Tensor:
            velocity = own(h) if free is None else guided(h, free, scale)
            noise = draws.normal(stream(place), (self.dim,))
            return config.walk(velocity, temperature * noise, times)

        return sample

    def _velocities(self, times: Tensor) -> Callable[[Tensor], flow.Velocity]:
        """times (S + 1,) -> states (R, W) -> the velocity of the first rows of them, x (r, D) at a place of `times`."""
        of_time, grid = self.time_modulation(times), times.tolist()  # (S + 1, M), for all tokens

        def of(h: Tensor) -> flow.Velocity:
            of_state = self.state_out(h)

            def velocity(x: Tensor, at: int) -> Tensor:
                output = self.network(x, of_time[at], of_state[: len(x)]).float()
                return flow.to_velocity(output, x, grid[at], self.config.prediction)

            return velocity

        return of
