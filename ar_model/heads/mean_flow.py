"""Mean-flow head: the flow head's network, which also says how fast noise moves on average over a stretch of the path.

Then one or two steps lead from noise to a latent: u(x_t, t, s), the mean velocity from t to s >= t, is the velocity
itself where s = t, and elsewhere it is bound to it by u = v + (s - t) du/dt along the path (Geng et al. 2025,
arXiv:2505.13447), here solved for v, which the data tell, with the model's own v as the direction of the derivative
(Geng et al. 2025, arXiv:2512.02012).

Shapes: B samples, R repeats, K latents of D channels, W width of the Transformer, S steps, M modulations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ar_model.heads.flow import FlowHead, FlowHeadConfig, GuidedTarget, PathSampleConfig
from ar_model.heads.modulated import TIME_FEATURES, ModulatedHead, ModulatedHeadConfig, start_small
from seqtok_core.layers import flow
from seqtok_core.layers.embed import time_features
from seqtok_core.layers.randomness import Draws

_APART = 0.01  # of time, on either side: far less than the quickest feature turns in


class MeanFlowHeadConfig(ModulatedHeadConfig):
    """The network of the flow head, told also how far the next look is."""

    kind: Literal["mean_flow"] = "mean_flow"
    repeats: int = Field(4, ge=2)  # half of them look at a stretch, the others at a time
    time_mean: float = 0.0  # of the logit of t in training; above 0 means more often near the data
    time_std: float = Field(1.0, gt=0)


class MeanFlowSampleConfig(PathSampleConfig):
    """Each step goes by the mean velocity of its stretch."""

    steps: int = Field(2, ge=1)


class MeanFlowHead(FlowHead):
    kind = "mean_flow"
    MUON_EXCLUDED: ClassVar[tuple[str, ...]] = (*ModulatedHead.MUON_EXCLUDED, "span_in.weight")
    FASTEST: ClassVar[float] = 16.0  # what turns quicker drowns the derivative by time

    def __init__(self, config: MeanFlowHeadConfig, width: int, dim: int) -> None:
        shared = config.model_dump(exclude={"kind"})
        super().__init__(FlowHeadConfig(**shared), width, dim)
        self.span_in = nn.Linear(TIME_FEATURES, config.width)
        self.span_out = nn.Linear(config.width, self.time_out.out_features, bias=False)
        nn.init.normal_(self.span_in.weight, std=TIME_FEATURES**-0.5)
        nn.init.zeros_(self.span_in.bias)
        start_small(self.span_out)

    def loss(self, h: Tensor, z: Tensor, draws: Draws, guided: GuidedTarget | None = None) -> Tensor:
        """h (B, K, W), z (B, K, D) -> (B, K): mean over R looks of each token, half of them at a time of the path as
        the flow head's, half at a stretch of it."""
        stretches = self.repeats // 2
        u = draws.uniform("flow/time", (self.repeats - stretches,))
        t = flow.logit_normal_times(u, self.config.time_mean, self.config.time_std)
        ends = draws.uniform("flow/stretch", (stretches, 2)).sort(-1).values  # (B, R, 2), any as likely as another
        over = self.loss_over(h, z, ends[..., 0], ends[..., 1], draws, guided)
        return torch.cat([self.loss_at(h, z, t, draws, guided), over], 1).mean(1)

    def loss_over(
        self, h: Tensor, z: Tensor, start: Tensor, end: Tensor, draws: Draws, guided: GuidedTarget | None = None
    ) -> Tensor:
        """Over stretches: h (B, K, W), z (B, K, D), start <= end (B, R) -> (B, R, K).

        The error counts less where the model's own derivative is steep: it makes what it is held against, and early in
        training runs away with it. A weight of x_t alone moves no minimum, which one of the error would.
        """
        noise = draws.normal("flow/stretch noise", (start.shape[1], *z.shape[1:]))  # (B, R, K, D)
        data, span = z[:, None].float(), (end - start)[:, :, None, None]
        x_t = flow.interpolate(noise, data, start[:, :, None, None])
        target = data - noise
        with torch.no_grad():
            now = self._mean(x_t, start, torch.zeros_like(start), h)
            if guided is not None:
                free = self._mean(x_t, start, torch.zeros_like(start), guided.free)
                target = flow.guided_target(target, now, free, guided.share[:, None, None, None])
            turn = span * self._change(x_t, now, start, end - start, h)
            weight = (1.0 + turn.square().mean(-1)).rsqrt()
        velocity = self._mean(x_t, start, end - start, h) - turn
        return weight * (velocity - target).square().mean(-1)

    def _change(self, x_t: Tensor, direction: Tensor, start: Tensor, span: Tensor, h: Tensor) -> Tensor:
        """(B, R, K, D): du/dt while x moves in `direction` and the end of the stretch stays where it is; by a central
        difference, as in Wang et al. 2025 (arXiv:2509.04394): ZeRO 3 knows no forward mode."""
        move = _APART * direction
        x, times = torch.cat([x_t + move, x_t - move], 1), torch.cat([start + _APART, start - _APART], 1)
        ahead, behind = self._mean(x, times, torch.cat([span - _APART, span + _APART], 1), h).chunk(2, 1)
        return (ahead - behind) / (2 * _APART)

    def _mean(self, x_t: Tensor, t: Tensor, span: Tensor, h: Tensor) -> Tensor:
        """x_t (B, R, K, D), t and span (B, R), h (B, K, W) -> (B, R, K, D) float32."""
        of_time = self.time_modulation(t, span)[:, :, None]
        return self.network(x_t, of_time, self.state_out(h)[:, None]).float()

    def time_modulation(self, t: Tensor, span: Tensor | None = None) -> Tensor:
        """t (*) in [0, 1], and from there how far (0 by default) -> (*, M)."""
        span = torch.zeros_like(t) if span is None else span
        features = time_features(span.flatten(), TIME_FEATURES, self.FASTEST).to(self.span_in.weight.dtype)
        return super().time_modulation(t) + self.span_out(F.silu(self.span_in(features))).unflatten(0, span.shape)

    def _velocities(self, times: Tensor) -> Callable[[Tensor], flow.Velocity]:
        """The mean ones of the stretches between `times`."""
        of_time = self.time_modulation(times[:-1], times.diff())

        def of(h: Tensor) -> flow.Velocity:
            of_state = self.state_out(h)

            def velocity(x: Tensor, at: int) -> Tensor:
                return self.network(x, of_time[at], of_state[: len(x)]).float()

            return velocity

        return of
