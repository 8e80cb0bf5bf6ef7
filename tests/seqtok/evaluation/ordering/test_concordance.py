"""Concordance: an order that speaks as people do has 1, its reverse 0, one that says all at once is a tie."""

from __future__ import annotations

import math

import pytest
import torch

from seqtok.evaluation.ordering.concordance import area, concordance, judge_order, reached

LENGTHS = (1, 2, 4, 8, 16)


def curve(*values: float) -> dict[int, float]:
    return dict(zip(LENGTHS, values, strict=True))


def test_a_level_is_reached_where_nine_tenths_of_it_are_told():
    points = curve(0.2, 0.4, 0.919, 0.92, 1.0)
    assert reached(points, chance=0.2) == 8
    assert reached(points, chance=0.0) == 4
    assert reached(curve(*[0.21] * 5), chance=0.2) is None


@pytest.mark.parametrize(
    ("lengths", "strict", "ties", "against", "gap"),
    [
        ((1, 2, 8), 1.0, 0.0, 0.0, (1 + 3 + 2) / 3),
        ((8, 2, 1), 0.0, 0.0, 1.0, -(1 + 3 + 2) / 3),
        ((1, 1, 1), 0.0, 1.0, 0.0, 0.0),
        ((1, None, 4), 1.0, 0.0, 0.0, 2.0),  # what is never told makes no pair
    ],
)
def test_pairs_of_levels(lengths: tuple[int | None, ...], strict: float, ties: float, against: float, gap: float):
    found = concordance(lengths)
    assert (found.strict, found.ties, found.against) == (strict, ties, against)
    assert found.gap == pytest.approx(gap)


def test_without_a_pair_nothing_is_said():
    assert concordance((4, None)).strict is None


def test_area_is_that_of_the_curve_over_octaves():
    flat, late = curve(*[0.7] * 5), curve(0.2, 0.2, 0.2, 0.2, 0.7)
    assert area(flat, chance=0.2, best=0.7) == pytest.approx(1.0)
    assert area(late, chance=0.2, best=0.7) == pytest.approx(0.5 / 4)  # a triangle over the last of four octaves
    assert area(curve(*[0.2] * 5), chance=0.2, best=0.7) == pytest.approx(0.0)
    assert math.isnan(area(flat, chance=0.7, best=0.7))


def planted(lengths: dict[str, int], count: int = 400) -> dict[str, torch.Tensor]:
    """Levels that are read right in 95 % from the given prefix on, and in 20 % before."""
    draw = torch.Generator().manual_seed(0)

    def read(first: int) -> torch.Tensor:
        return torch.stack([torch.rand(count, generator=draw) < (0.95 if k >= first else 0.2) for k in LENGTHS])

    return {level: read(first).float() for level, first in lengths.items()}


def test_a_planted_order_is_found_with_its_interval():
    chance = {"count": 0.2, "shapes": 0.2, "colors": 0.2}
    found = judge_order(planted({"count": 1, "shapes": 2, "colors": 8}), LENGTHS, chance, seed=0)
    assert found["reached"] == {"count": 1, "shapes": 2, "colors": 8}
    assert found["strict"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    against = judge_order(planted({"count": 8, "shapes": 2, "colors": 1}), LENGTHS, chance, seed=0)
    assert against["strict"]["value"] == 0.0
    assert against["against"]["value"] == 1.0
    assert found == judge_order(planted({"count": 1, "shapes": 2, "colors": 8}), LENGTHS, chance, seed=0)


def test_a_narrow_lead_has_a_wide_interval():
    """Levels that are told alike are told apart by chance alone, and the interval says so."""
    hits = planted({"count": 2, "shapes": 2}, count=60)
    hits["shapes"][1] = torch.cat([torch.ones(54), torch.zeros(6)])  # nine tenths, by a hair
    hits["shapes"][2:] = 1.0
    found = judge_order(hits, LENGTHS, {"count": 0.0, "shapes": 0.0}, seed=1)
    assert found["strict"]["low"] == 0.0
    assert found["strict"]["high"] == 1.0


def test_pictures_without_a_label_do_not_count():
    hits = planted({"count": 1, "shapes": 2})
    holes = {level: own.clone() for level, own in hits.items()}
    holes["count"][:, ::2] = float("nan")
    found = judge_order(holes, LENGTHS, {"count": 0.2, "shapes": 0.2}, seed=0)
    assert found["accuracy"]["count"]["1"] == pytest.approx(float(hits["count"][0, 1::2].mean()))
