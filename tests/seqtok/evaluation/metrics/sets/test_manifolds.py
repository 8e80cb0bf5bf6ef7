"""Precision and recall: the definition written out, and what must hold of any two sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seqtok.evaluation.metrics.sets.manifolds import precision_recall


def normal(count: int, seed: int, features: int = 4) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


def within(asked: Tensor, centres: Tensor, k: int) -> float:
    """As the paper's equation 1 and 2 have it, picture by picture."""
    inside = 0
    for one in asked.numpy():
        for j, centre in enumerate(centres.numpy()):
            others = np.delete(centres.numpy(), j, axis=0)
            radius = np.sort(np.linalg.norm(others - centre, axis=1))[k - 1]
            if np.linalg.norm(one - centre) <= radius:
                inside += 1
                break
    return inside / len(asked)


@pytest.mark.parametrize("k", [1, 3])
def test_it_is_the_definition(k: int) -> None:
    real, made = normal(60, 0), 0.7 * normal(50, 1) + 0.5
    found = precision_recall(real, made, k)
    assert found.precision == pytest.approx(within(made, real, k))
    assert found.recall == pytest.approx(within(real, made, k))
    assert 0 < found.recall < found.precision < 1


def test_equal_sets_have_all_and_distant_ones_nothing() -> None:
    real = normal(200, 0)
    assert precision_recall(real, real.clone()) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    assert precision_recall(real, real[:1].expand(200, -1)) == (1.0, 1 / 200), "one real picture, again and again"


def test_half_of_a_law_is_precise_and_does_not_cover() -> None:
    real, made = normal(1000, 0, 2), normal(1000, 1, 2)
    real[:500, 0] += 30
    found = precision_recall(real, made)
    assert found.precision > 0.9
    assert 0.4 < found.recall < 0.55


def test_order_place_rotation_and_scale_do_not_matter_and_sides_change_places() -> None:
    real, made = normal(300, 0), 0.6 * normal(300, 1)
    found = precision_recall(real, made)
    turned = 5 * torch.linalg.qr(normal(4, 2)).Q
    moved = precision_recall((real @ turned + 3).flip(0), (made @ turned + 3).flip(0))
    assert moved == pytest.approx(found, abs=0.01)
    assert precision_recall(made, real) == (found.recall, found.precision)


@pytest.mark.parametrize(("real", "made", "k"), [(3, 9, 3), (9, 3, 3), (9, 9, 0)])
def test_too_few_pictures_for_a_neighbour_are_refused(real: int, made: int, k: int) -> None:
    with pytest.raises(ValueError, match="neighbour"):
        precision_recall(normal(real, 0), normal(made, 1), k)
