"""Fréchet distance at endlessly many pictures: the line is least squares, and what it takes away is the bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seqtok.evaluation.metrics.sets.frechet import (
    ENOUGH,
    frechet_distance,
    frechet_infinity,
    frechet_infinity_of_pairs,
    frechet_note,
)

FEATURES = 16


def normal(count: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed)) + shift


def test_two_numbers_of_pictures_give_the_line_through_both() -> None:
    """Against numpy, on the very parts: half of the pictures, of which the seed draws the first, and all of them."""
    made, real = normal(40, 0), normal(300, 1)
    drawn = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:17]
    distances = [frechet_distance(made[drawn], real), frechet_distance(made, real)]
    slope, value = np.polyfit([1 / 17, 1 / 40], distances, 1)
    found = frechet_infinity(made, real, points=2, seed=3)
    assert found.value == pytest.approx(value, rel=1e-6)
    assert found.slope == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_it_takes_the_bias_away(scale: float) -> None:
    """Of equal laws the truth is 0; of one that is half as wide again, half a standard deviation in each channel."""
    real, truth = normal(20_000, 1), FEATURES * (scale - 1) ** 2
    sets = [scale * normal(200, seed) for seed in range(2, 8)]
    plain = float(np.mean([frechet_distance(made, real) for made in sets])) - truth
    limit = float(np.mean([frechet_infinity(made, real).value for made in sets])) - truth
    assert plain > 0.3
    assert abs(limit) < 0.5 * plain


def test_it_is_a_function_of_the_features_and_the_seed() -> None:
    made, real = normal(100, 0), normal(100, 1)
    before = torch.random.get_rng_state()
    value = frechet_infinity(made, real).value
    assert frechet_infinity(made, real).value == pytest.approx(value, rel=1e-9), "up to how the machine rounds"
    assert torch.equal(before, torch.random.get_rng_state())
    assert frechet_infinity(made, real, seed=1).value != pytest.approx(value, rel=1e-3)
    turned = torch.linalg.qr(normal(FEATURES, 2)).Q
    rotated = frechet_infinity(made @ turned + 3, real @ turned + 3)
    assert rotated.value == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_pictures_that_are_alike_one_by_one_are_no_nearer_at_infinity(alike: float) -> None:
    """Of equal laws the truth is 0, however much each picture has of its own real one; the plain line ends below."""
    pairs, plain = [], []
    for seed in range(12):
        real, other = normal(1000, 2 * seed), normal(1000, 2 * seed + 1)
        made = alike * real + (1 - alike**2) ** 0.5 * other
        pairs.append(frechet_infinity_of_pairs(made, real))
        plain.append(frechet_infinity(made, real).value)
    assert abs(float(np.mean(pairs))) < (0.01 if alike else 0.05)
    if alike:
        assert float(np.mean(plain)) < -0.03
    far = frechet_infinity_of_pairs(made + 1, real)
    assert far == pytest.approx(FEATURES, rel=0.1)
    again = frechet_infinity_of_pairs(made + 1, real)
    assert again == pytest.approx(far, rel=1e-9), "up to how the machine rounds"
    with pytest.raises(ValueError, match="4 pairs"):
        frechet_infinity_of_pairs(made[:3], real[:3])
    with pytest.raises(ValueError, match="4 pairs"):
        frechet_infinity_of_pairs(made[:9], real)


@pytest.mark.parametrize(
    ("pictures", "features", "said"),
    [(15, 16, "singular"), (2048, 4096, "singular"), (16, 16, "biased"), (2047, 64, "biased"), (2048, 2048, None)],
)
def test_too_few_pictures_are_said(pictures: int, features: int, said: str | None) -> None:
    note = frechet_note(pictures, features)
    assert note is None if said is None else said in str(note)


def test_the_note_is_that_of_the_smaller_set() -> None:
    large, small = normal(ENOUGH, 0), normal(10, 1)
    assert "singular" in str(frechet_infinity(large, small).note)
    assert "singular" in str(frechet_infinity(small, large).note)
    assert frechet_infinity(large[:, :2], large[:, :2] + 1).note is None


@pytest.mark.parametrize(("made", "real", "points"), [(3, 10, 15), (10, 1, 15), (1, 10, 15), (10, 10, 1)])
def test_too_little_for_a_line_is_refused(made: int, real: int, points: int) -> None:
    with pytest.raises(ValueError, match="pictures"):
        frechet_infinity(normal(made, 0), normal(real, 1), points=points)
