"""Rectified flow: a straight path from noise to data, its loss, and the few-step samplers that walk it.

x_t = (1 - t) noise + t data, so t = 0 is noise, t = 1 is data, and the velocity data - noise does not change
on the way (Liu et al. 2022, arXiv:2209.03003). Logit-normal times: Esser et al. 2024, arXiv:2403.03206.
Predicting the data and weighing it as velocity: Li and He 2025, arXiv:2511.13720.

Shapes: `*` any leading shape, D channels, S steps. t broadcasts against x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["velocity", "data"]
Schedule = Literal["constant", "linear"]
Velocity = Callable[[Tensor, int], Tensor]  # (x_t, place of t in the grid of times) -> dx/dt
Walk = Callable[[Velocity, Tensor, Tensor], Tensor]  # velocity, x at the first of the times, times -> x at the last

LEAST_DISTANCE = 0.05  # of t from 1: bounds the division that turns data into velocity


def interpolate(noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """The point x_t on the straight path."""
    return noise + t * (data - noise)


def to_velocity(output: Tensor, x_t: Tensor, t: Tensor | float, prediction: Prediction) -> Tensor:
    """A network's output -> velocity. From data x: (x - x_t) / (1 - t)."""
    if prediction == "velocity":
        return output
    rest = (1.0 - torch.as_tensor(t, dtype=x_t.dtype, device=x_t.device)).clamp(min=LEAST_DISTANCE)
    return (output - x_t) / rest


def logit_normal_times(uniform: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """uniform (*, R) in (0, 1) -> times (*, R) in (0, 1), stratified along the last axis.

    Each of the R times comes from its own R-th of the distribution: every t keeps its law, but the R of one
    sample cannot all fall together, which makes the loss less noisy at no cost.
    """
    repeats = uniform.shape[-1]
    stratum = torch.arange(repeats, device=uniform.device, dtype=uniform.dtype)
    return torch.sigmoid(mean + std * torch.special.ndtri((stratum + uniform) / repeats))


def flow_loss(velocity: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """Squared error against data - noise, mean over channels: (*, D) -> (*)."""
    return (velocity.float() - (data - noise).float()).square().mean(-1)


def guided_target(target: Tensor, conditional: Tensor, free: Tensor, share: Tensor | float) -> Tensor:
    """What a velocity is held against to become that of guidance by itself: the data's own `target`, and a share of
    what the condition changes. It is met where `conditional` is `guide(target, free, 1 / (1 - share))`
    (Tang et al. 2025, arXiv:2502.12154)."""
    return target + share * (conditional - free)


def guide(conditional: Tensor, free: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): scale 1 is the conditional, 0 the free velocity."""
    return free + scale * (conditional - free)


def guidance_at(place: int, length: int, scale: float, schedule: Schedule) -> float:
    """The scale for token `place` of `length`: the same for all, or rising linearly from 1 to `scale`."""
    if schedule == "constant" or length == 1:
        return scale
    return 1.0 + (scale - 1.0) * place / (length - 1)


def time_grid(steps: int, device: torch.device | None = None) -> Tensor:
    """(S + 1,) times from 0 to 1, evenly spaced."""
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    return torch.linspace(0.0, 1.0, steps + 1, device=device)


def euler(velocity: Velocity, start: Tensor, times: Tensor) -> Tensor:
    """Walk from `start` at times[0] to times[-1]; one evaluation a step, error O(1 / S).

    times (S + 1,), or (S + 1, K, 1) where each of K tokens of `start` (B, K, D) has times of its own.
    """
    x = start
    for i, step in enumerate(_steps(times)):
        x = x + step * velocity(x, i)
    return x


def heun(velocity: Velocity, start: Tensor, times: Tensor) -> Tensor:
    """Two evaluations a step, error O(1 / S^2).

    The last step is Euler's: at t = 1 a network that predicts data has no velocity (Karras et al. 2022,
    arXiv:2206.00364, end the same way); one step of error O(1 / S^2) leaves the order as it is.
    """
    x, steps = start, _steps(times)
    for i, step in enumerate(steps):
        slope = velocity(x, i)
        if i + 1 < len(steps):
            slope = 0.5 * (slope + velocity(x + step * slope, i + 1))
        x = x + step * slope
    return x


def adams_bashforth(velocity: Velocity, start: Tensor, times: Tensor) -> Tensor:
    """One evaluation a step, error O(1 / S^2): the slope goes on changing as it did since the step before (Bashforth
    and Adams 1883; the first step, and what has not moved yet, is Euler's)."""
    x, steps, last = start, _steps(times), start
    for i, step in enumerate(steps):
        slope = velocity(x, i)
        x = x + step * (slope + 0.5 * _ratio(step, steps[i - 1]) * (slope - last) if i else slope)
        last = slope
    return x


Step = Tensor | float


def _steps(times: Tensor) -> Sequence[Step]:
    if times.ndim > 1:
        return list((times[1:] - times[:-1]).unbind(0))
    return [after - before for before, after in pairwise(times.tolist())]


def _ratio(step: Step, before: Step) -> Step:
    """0 where there was no step before."""
    if isinstance(before, Tensor):
        return torch.where(before > 0, step / before.clamp(min=1e-9), 0.0)
    return step / before if before else 0.0


SOLVERS: dict[str, Walk] = {
    "adams_bashforth": adams_bashforth,
    "euler": euler,
    "heun": heun,
}
Solver = Literal["adams_bashforth", "euler", "heun"]
