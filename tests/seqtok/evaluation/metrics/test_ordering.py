"""Rank correlation against torchmetrics, and the area under a curve of prefixes against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqtok.evaluation.metrics.ordering import kendall_tau_b, prefix_area
from seqtok_core.foundation.compat import prepare_torchvision


@pytest.mark.parametrize("values", [1000, 3])
@pytest.mark.parametrize("seed", range(5))
def test_tau_b_is_that_of_torchmetrics(values: int, seed: int) -> None:
    """Without ties and with many."""
    prepare_torchvision()
    from torchmetrics.functional import kendall_rank_corrcoef

    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, values, (2, 25)).astype(float)
    expected = float(kendall_rank_corrcoef(torch.tensor(one), torch.tensor(other), variant="b"))
    assert kendall_tau_b(one.tolist(), other.tolist()) == pytest.approx(expected, abs=1e-6)


def test_tau_b_by_hand() -> None:
    """Of three pairs two agree and one does not; of three pairs two agree and one is tied on one side."""
    assert kendall_tau_b([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau_b([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / (2 * 3) ** 0.5)


def test_only_the_order_counts() -> None:
    levels, lengths = [1, 2, 3, 4, 5], [1.0, 4.0, 2.0, 8.0, 16.0]
    found = kendall_tau_b(levels, lengths)
    assert found is not None
    assert kendall_tau_b(levels, [np.log2(k) for k in lengths]) == pytest.approx(found)
    assert kendall_tau_b(lengths, levels) == pytest.approx(found)
    assert kendall_tau_b(levels, [-k for k in lengths]) == pytest.approx(-found)
    assert kendall_tau_b(levels, levels) == pytest.approx(1.0)


def test_chance_is_no_order_and_ties_alone_are_none() -> None:
    rng = np.random.default_rng(0)
    drawn = [kendall_tau_b(range(8), rng.permutation(8).tolist()) for _ in range(2000)]
    assert abs(np.mean([value for value in drawn if value is not None])) < 0.02
    assert kendall_tau_b([1, 2, 3], [4, 4, 4]) is None
    assert kendall_tau_b([1], [1]) is None
    with pytest.raises(ValueError, match="same things"):
        kendall_tau_b([1, 2], [1])


def test_the_area_is_numpys_over_log2_k() -> None:
    points = {"1": 0.3, "2": 0.5, "4": 0.45, "8": 0.8, "12": 0.9}
    heights = [(value - 0.25) / (0.9 - 0.25) for value in points.values()]
    places = np.log2([int(k) for k in points])
    expected = np.trapezoid(heights, places) / places[-1]
    assert prefix_area(points, chance=0.25, best=0.9) == pytest.approx(expected)
    assert prefix_area(dict(reversed(points.items())), chance=0.25, best=0.9) == pytest.approx(expected)


def test_the_area_lies_between_knowing_at_once_and_never() -> None:
    every = ("1", "2", "4", "8", "16")
    assert prefix_area(dict.fromkeys(every, 0.9), chance=0.1, best=0.9) == pytest.approx(1.0)
    assert prefix_area(dict.fromkeys(every, 0.1), chance=0.1, best=0.9) == pytest.approx(0.0)
    assert prefix_area({k: 0.1 + 0.2 * i for i, k in enumerate(every)}, 0.1, 0.9) == pytest.approx(0.5)
    early, late = {"1": 0.1, "2": 0.9, "4": 0.9}, {"1": 0.1, "2": 0.1, "4": 0.9}
    assert prefix_area(early, 0.1, 0.9) > prefix_area(late, 0.1, 0.9)


@pytest.mark.parametrize(("points", "best"), [({"1": 0.5}, 0.9), ({}, 0.9), ({"1": 0.1, "2": 0.2}, 0.1)])
def test_what_has_no_area_is_refused(points: dict[str, float], best: float) -> None:
    with pytest.raises(ValueError, match=r"chance|at least two"):
        prefix_area(points, chance=0.1, best=best)
