"""The mean-flow head: what it says of a stretch is bound to the velocity, and a step goes as far as it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ar_model.heads.build import build_head
from ar_model.heads.flow import GuidedTarget
from ar_model.heads.mean_flow import MeanFlowHead, MeanFlowHeadConfig, MeanFlowSampleConfig
from seqtok_core.layers import flow
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import DIM, LENGTH, latent_spec

WIDTH, MEAN, STD = 16, 1.5, 0.4


def own_draws(rows: int) -> Draws:
    index = torch.arange(rows)
    return Draws(0, torch.zeros_like(index), index)


def random_head() -> MeanFlowHead:
    torch.manual_seed(0)
    head = build_head(MeanFlowHeadConfig(width=24, depth=2), WIDTH, latent_spec())
    assert isinstance(head, MeanFlowHead)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.3)
    return head


def spread(t: Tensor) -> Tensor:
    """Of x_t, where data are normal with MEAN and STD."""
    return ((1 - t) ** 2 + (t * STD) ** 2).sqrt()


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """Of the flow that leads standard normal noise to such data: x_t keeps its place in the normal law."""
    turned = (t * STD**2 - (1 - t)) / spread(t)  # d spread / dt
    return MEAN + turned / spread(t) * (x - t * MEAN)


def mean_velocity(x: Tensor, t: Tensor, span: Tensor, h: Tensor) -> Tensor:
    """What `_mean` should say then: (x_s - x_t) / (s - t)."""
    t, span = t[:, :, None, None], span[:, :, None, None]
    there = (t + span) * MEAN + spread(t + span) / spread(t) * (x - t * MEAN)
    return torch.where(span == 0, velocity(x, t), (there - x) / torch.where(span == 0, 1, span))


def test_of_the_true_mean_velocities_the_velocity_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    head, draws = random_head(), own_draws(400)
    monkeypatch.setattr(head, "_mean", mean_velocity)
    z = MEAN + STD * torch.randn(400, LENGTH, DIM)
    start, end = torch.rand(400, 4).mul(0.9), torch.ones(400, 4)
    end = start + torch.rand(400, 4) * (end - start)
    noise = draws.normal("flow/stretch noise", (4, LENGTH, DIM))
    t = start[:, :, None, None]
    x_t, zero = flow.interpolate(noise, z[:, None], t), torch.zeros(400, LENGTH, WIDTH)
    turn = mean_velocity(x_t, start, end - start, zero) - velocity(x_t, t)
    error = (velocity(x_t, t) - (z[:, None] - noise)).square().mean(-1)
    expected = error * (1 + turn.square().mean(-1)) ** -0.5
    found = head.loss_over(zero, z, start, end, draws)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.01)


@torch.no_grad()
def test_a_step_goes_as_far_as_the_mean_velocity_says() -> None:
    head, draws, scale = random_head(), own_draws(5), 2.0
    h, free = torch.randn(2, 5, WIDTH)
    x = draws.normal("sample/3", (DIM,))
    for start, span in ((0.0, 0.5), (0.5, 0.5)):
        t, left = torch.full((5, 1), start), torch.full((5, 1), span)
        with_prompt, without = (head._mean(x[:, None, None], t, left, s[:, None])[:, 0, 0] for s in (h, free))
        x = x + span * (without + scale * (with_prompt - without))
    got = head.sampler(1.0, MeanFlowSampleConfig(steps=2))(h, free, scale, draws, place=3)
    torch.testing.assert_close(got, x)


def test_over_no_distance_it_is_the_flow_heads_loss() -> None:
    head, t = random_head(), torch.rand(5, 3)
    h, z, draws = torch.randn(5, LENGTH, WIDTH), torch.randn(5, LENGTH, DIM), own_draws(5)
    data, noise = z[:, None], draws.normal("flow/stretch noise", (3, LENGTH, DIM))
    x_t = flow.interpolate(noise, data, t[:, :, None, None])
    plain = flow.flow_loss(head._velocity(x_t, t, head.time_modulation(t)[:, :, None], h), noise, data)
    torch.testing.assert_close(head.loss_over(h, z, t, t, draws), plain)


@pytest.mark.parametrize("guided", [False, True])
def test_what_it_is_held_against_gets_no_gradient(guided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    head = random_head()
    h, free = (torch.randn(5, LENGTH, WIDTH).requires_grad_() for _ in range(2))
    z, (start, end) = torch.randn(5, LENGTH, DIM), torch.rand(5, 3, 2).sort(-1).values.unbind(-1)
    target = GuidedTarget(free, torch.full((5,), 0.4)) if guided else None

    def gradient() -> Tensor:
        return torch.autograd.grad(head.loss_over(h, z, start, end, own_draws(5), target).sum(), h)[0]

    def steady(*given: Any) -> Tensor:
        return change(*given).detach()

    found, change = gradient(), head._change
    monkeypatch.setattr(head, "_change", steady)
    torch.testing.assert_close(gradient(), found)
    losses = head.loss_over(h, z, start, end, own_draws(5), target)
    assert torch.equal(losses, head.loss_over(h, z, start, end, own_draws(5))) is not guided
    losses.sum().backward()
    assert free.grad is None
