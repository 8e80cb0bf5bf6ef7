"""The flow head: its sampler walks its own velocity, and it learns a law that it is shown."""

from __future__ import annotations

import pytest
import torch

from ar_model import FlowHeadConfig
from ar_model.heads.base import Head
from ar_model.heads.build import build_head
from ar_model.heads.flow import FlowSampleConfig
from seqtok_core.layers import flow
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import DIM, LENGTH, toy_generator

WIDTH = 16


def own_draws(rows: int, epoch: int = 0) -> Draws:
    index = torch.arange(rows)
    return Draws(0, torch.full_like(index, epoch), index)


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_sampling_is_eulers_walk_along_the_network(prediction: flow.Prediction) -> None:
    torch.manual_seed(0)
    head = build_head(FlowHeadConfig(width=24, depth=2, prediction=prediction), WIDTH, DIM)
    for parameter in head.parameters():
        parameter.normal_(std=0.3)
    h, free = torch.randn(2, 5, WIDTH)
    draws, steps, scale = own_draws(5), 4, 2.0
    x = draws.normal("sample/3", (DIM,))
    for i in range(steps):
        t = torch.tensor([i / steps])
        both = [head.network(x, head.time_modulation(t), head.state_out(s)) for s in (h, free)]
        v, v_free = (flow.to_velocity(output, x, t, prediction) for output in both)
        x = x + (v_free + scale * (v - v_free)) / steps
    got = head.sampler(1.0, FlowSampleConfig(steps=steps))(h, free, scale, draws, place=3)
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-5)


def test_every_token_and_prompt_has_its_own_standard_normal_noise() -> None:
    """A head without velocity hands back the noise that it began with."""
    model = toy_generator()
    torch.nn.init.zeros_(model.head.out.weight)
    torch.nn.init.zeros_(model.head.out.bias)
    noise = model.spec.normalise(model.sample(["a red circle"] * 400, guidance=1.0, flow={"steps": 1}))
    flat = noise.flatten(1)  # (400, K D)
    covariance = torch.cov(flat.T)
    assert float((covariance - torch.eye(LENGTH * DIM)).abs().max()) < 0.3  # 1 / sqrt(400) = 0.05
    assert float(flat.mean(0).abs().max()) < 0.25


def learnt(head: Head, rows: int = 64, steps: int = 200) -> torch.Tensor:
    """(2, rows, 1) samples for two states, after showing the head -1 or +1 (evenly) and a steady 2."""
    state = torch.eye(2, WIDTH).repeat_interleave(rows, 0)[:, None]  # (2 rows, 1, W)
    sign = torch.where(torch.arange(rows) % 2 > 0, 1.0, -1.0)
    z = torch.cat([sign, torch.full((rows,), 2.0)])[:, None, None]
    optimizer = torch.optim.AdamW(head.parameters(), lr=4e-3)
    for step in range(steps):
        optimizer.zero_grad()
        head.loss(state, z, own_draws(2 * rows, step)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        sample = head.sampler(1.0, FlowSampleConfig(steps=20))
        return sample(state[:, 0], None, 1.0, own_draws(2 * rows, steps), 0).view(2, rows, 1)


@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_two_modes_are_learnt_as_two_modes(prediction: flow.Prediction) -> None:
    """What squared error cannot do: its answer to -1 or +1 would be 0."""
    torch.manual_seed(0)
    either, steady = learnt(build_head(FlowHeadConfig(width=32, depth=2, prediction=prediction), WIDTH, 1))
    assert float((steady - 2.0).abs().mean()) < 0.2
    assert float((either.abs() - 1.0).abs().mean()) < 0.2
    assert 0.35 < float((either > 0).float().mean()) < 0.65
