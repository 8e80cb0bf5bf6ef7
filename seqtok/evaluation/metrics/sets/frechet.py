"""Fréchet distance between two sets of pictures in a fixed network's features (Heusel et al. 2017, arXiv:1706.08500).

Shapes: n and m pictures, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ENOUGH = 2048  # pictures; the usual features are as many, and a covariance of fewer pictures than features is singular
_POINTS = 15  # numbers of pictures that a line is laid through, as in Chong and Forsyth


@dataclass(frozen=True)
class FrechetLimit:
    """What the distance would be, were there endlessly many pictures of the first set."""

    value: float
    slope: float  # of the line over 1 / pictures: the bias at n pictures is slope / n
    note: str | None  # `frechet_note`


@dataclass(frozen=True)
class Moments:
    """Of a set's features: all that the distance needs."""

    mean: Tensor  # (D,) float64
    covariance: Tensor  # (D, D) float64, over n - 1


def moments(features: Tensor) -> Moments:
    """features (n, D), n of 2 or more."""
    features = features.double()
    return Moments(features.mean(0), torch.cov(features.T))


def frechet_between(a: Moments, b: Moments) -> float:
    """As `frechet_distance`, where all that is left of a set are its moments."""
    return _distance(a, _root(a.covariance), b)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """a (n, D), b (m, D) -> |mean difference|^2 + tr(A + B - 2 (A B)^1/2) of the covariances, 0 for equal laws.

    It shrinks with the number of pictures even for equal laws: compare at equal numbers, beside the distance of two
    sets of real pictures. Raises ValueError for fewer than two pictures.
    """
    _require_two(len(a), len(b))
    return frechet_between(moments(a), moments(b))


def frechet_infinity(a: Tensor, b: Tensor, *, points: int = _POINTS, seed: int = 0) -> FrechetLimit:
    """a (n, D) made, b (m, D) real -> the distance without the bias of a finite `a` (Chong and Forsyth 2020,
    arXiv:1911.07023): a least-squares line over 1 / N through distances of random parts of N pictures, at 1 / N = 0.

    Parts are from a tenth of `a` (more than its features, where there are enough) to all of it. It may fall below 0;
    that `b` is finite stays in it. A function of the features and the seed. Raises ValueError for fewer than 4 pictures
    of `a` or 2 of `b`, or fewer than two points.
    """
    count = len(a)
    _require_two(count, len(b))
    if count < 4 or points < 2:
        raise ValueError(f"{count} pictures at {points} numbers of them: a line needs two numbers, and 4 pictures")
    real = moments(b)
    numbers = _numbers(count, a.shape[1], points)
    generator = torch.Generator().manual_seed(seed)
    root = _root(real.covariance)
    parts = [a[torch.randperm(count, generator=generator)[:number].to(a.device)] for number in numbers]
    value, slope = _at_infinity(numbers, [_distance(real, root, moments(part)) for part in parts])
    return FrechetLimit(value, slope, frechet_note(min(count, len(b)), a.shape[1]))


def frechet_infinity_of_pairs(a: Tensor, b: Tensor, *, points: int = _POINTS, seed: int = 0) -> float:
    """a (n, D), b (n, D), where a[i] is made for what b[i] shows -> the distance without the bias of finite sets: a
    least-squares line over 1 / N through distances of random parts of N pairs, at 1 / N = 0.

    Pictures that are alike one by one look nearer than their laws are, the more so the fewer there are. In parts of
    pairs that is a share of the bias, which falls as 1 / N; with all of `b` against parts of `a` it would grow with N,
    and the line end below 0. Raises ValueError for fewer than 4 pairs, or fewer than two points.
    """
    count = len(a)
    if count != len(b) or count < 4 or points < 2:
        raise ValueError(f"{count} and {len(b)} pictures at {points} numbers: a line needs 4 pairs and two numbers")
    generator = torch.Generator().manual_seed(seed)
    numbers = _numbers(count, a.shape[1], points)
    parts = (torch.randperm(count, generator=generator)[:number].to(a.device) for number in numbers)
    return _at_infinity(numbers, [frechet_distance(a[part], b[part]) for part in parts])[0]


def frechet_note(pictures: int, features: int) -> str | None:
    """Why a distance of so many pictures cannot be compared with others, for whoever shows it; None where it can."""
    if pictures < features:
        return f"{pictures} pictures are fewer than the {features} features: the covariance is singular"
    if pictures < ENOUGH:
        return f"{pictures} pictures are fewer than {ENOUGH}: the distance is biased upwards"
    return None


def _numbers(count: int, features: int, points: int) -> list[int]:
    """Of pictures in parts of `count`: from a tenth (more than the features, where there are enough) to all."""
    least = max(2, min(max(count // 10, features + 1), count // 2))
    return [int(number) for number in torch.linspace(least, count, points).round().tolist()]


def _at_infinity(numbers: Sequence[int], distances: Sequence[float]) -> tuple[float, float]:
    """-> value and slope of the line over 1 / number."""
    ones = torch.ones(len(numbers), dtype=torch.float64)
    line = torch.stack([ones, 1 / torch.tensor(numbers, dtype=torch.float64)], 1)
    known = torch.tensor(distances, dtype=torch.float64)[:, None]
    value, slope = torch.linalg.lstsq(line, known).solution[:, 0].tolist()
    return value, slope


def _require_two(first: int, second: int) -> None:
    if min(first, second) < 2:
        raise ValueError(f"{first} and {second} pictures: a covariance needs two of each")


def _distance(a: Moments, root_of_a: Tensor, b: Moments) -> float:
    mixed = torch.linalg.eigvalsh(root_of_a @ b.covariance @ root_of_a).clamp(min=0).sqrt().sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * mixed
    return float((a.mean - b.mean).square().sum() + spread)


def _root(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix without negative directions."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
