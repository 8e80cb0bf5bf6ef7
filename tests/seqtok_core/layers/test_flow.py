"""Rectified flow: conversions agree, and the solvers walk a flow whose end is known in closed form."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from seqtok_core.layers import flow

MEAN, STD = 1.5, 0.4  # of the Gaussian data of the closed-form flow


def gaussian_velocity(x: Tensor, t: float) -> Tensor:
    """E[data - noise | x_t = x] for data ~ N(MEAN, STD^2), noise ~ N(0, 1) on the straight path.

    Its flow carries quantiles: the point that starts at noise n ends at MEAN + STD n.
    """
    variance = (1 - t) ** 2 + (t * STD) ** 2
    slope = (t * STD**2 - (1 - t)) / variance
    return MEAN + slope * (x - t * MEAN)


def error_of(solver: str, steps: int) -> float:
    noise = torch.linspace(-2, 2, 41, dtype=torch.float64)
    times = flow.time_grid(steps).double()
    end = flow.SOLVERS[solver](lambda x, at: gaussian_velocity(x, float(times[at])), noise, times)
    return float((end - (MEAN + STD * noise)).abs().max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("adams_bashforth", 2)])
def test_solvers_reach_the_closed_form_end_at_their_order(solver: str, order: int) -> None:
    errors = [error_of(solver, steps) for steps in (20, 40, 80)]
    assert errors[-1] < 0.02
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.2)


def test_heun_never_asks_at_the_end_of_the_path() -> None:
    asked: list[int] = []

    def velocity(x: Tensor, at: int) -> Tensor:
        asked.append(at)
        return x

    flow.heun(velocity, torch.ones(3), flow.time_grid(4))
    assert asked == [0, 1, 1, 2, 2, 3, 3]


def test_true_velocity_and_true_data_are_one_prediction() -> None:
    generator = torch.Generator().manual_seed(0)
    noise, data = torch.randn(2, 50, 3, generator=generator)
    t = 0.9 * torch.rand(50, 1, generator=generator)
    x_t = flow.interpolate(noise, data, t)
    torch.testing.assert_close(flow.to_velocity(data, x_t, t, "data"), data - noise, rtol=1e-4, atol=1e-4)
    assert float(flow.flow_loss(data - noise, noise, data).max()) == 0.0


@pytest.mark.parametrize("scale", [1.0, 1.5, 3.0])
def test_a_velocity_meets_its_guided_target_where_it_is_that_of_guidance(scale: float) -> None:
    data_own, free = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)).unbind(0)
    guided = flow.guide(data_own, free, scale)
    torch.testing.assert_close(flow.guided_target(data_own, guided, free, 1 - 1 / scale), guided)
    if scale > 1:
        plain = flow.guided_target(data_own, data_own, free, 1 - 1 / scale)
        assert not torch.allclose(plain, data_own)


def test_data_prediction_stays_bounded_at_the_end_of_the_path() -> None:
    x = torch.zeros(4, 2)
    assert float(flow.to_velocity(x + 1, x, 1.0, "data").max()) == pytest.approx(1 / flow.LEAST_DISTANCE)


def test_path_begins_in_noise_and_ends_in_data() -> None:
    noise, data = torch.zeros(2, 3), torch.ones(2, 3)
    assert torch.equal(flow.interpolate(noise, data, torch.zeros(2, 1)), noise)
    assert torch.equal(flow.interpolate(noise, data, torch.ones(2, 1)), data)


def test_times_are_logit_normal_and_stratified() -> None:
    u = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0))
    t = flow.logit_normal_times(u, mean=0.5, std=0.8)
    logit = torch.logit(t.double())
    assert float(logit.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(logit.std()) == pytest.approx(0.8, abs=0.02)
    assert bool((t[:, 1:] > t[:, :-1]).all()), "each repeat has its own part of the distribution"
    assert bool(((t > 0) & (t < 1)).all())


def test_guidance_scales() -> None:
    conditional, free = torch.tensor([3.0]), torch.tensor([1.0])
    assert [float(flow.guide(conditional, free, s)) for s in (0.0, 1.0, 2.0)] == [1.0, 3.0, 5.0]
    assert [flow.guidance_at(i, 5, 3.0, "linear") for i in range(5)] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert {flow.guidance_at(i, 5, 3.0, "constant") for i in range(5)} == {3.0}
    assert flow.guidance_at(0, 1, 3.0, "linear") == 3.0


def test_no_steps_is_an_error() -> None:
    with pytest.raises(ValueError, match="steps=0"):
        flow.time_grid(0)


@pytest.mark.parametrize("solver", flow.SOLVERS)
def test_tokens_with_times_of_their_own_walk_as_if_alone(solver: str) -> None:
    """One begins two steps late, one stands still; each has its own grid."""
    own = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.0, 0.5, 1.0], [1.0] * 5])  # (K, S + 1)
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(3 * x + t)

    times = own.T[..., None]
    together = flow.SOLVERS[solver](lambda x, at: velocity(x, times[at]), start, times)
    for token, grid in enumerate(own):
        moving = torch.cat([grid[:1], grid[1:][grid[1:] > grid[:-1]]])
        alone = start[:, token]
        if len(moving) > 1:
            alone = flow.SOLVERS[solver](lambda x, at: velocity(x, moving[at]), alone, moving)  # noqa: B023
        torch.testing.assert_close(together[:, token], alone)
