"""Precision and recall of a set of pictures: what lies among real ones, and how much of these is covered.

A set's manifold is the union of balls around its pictures, each as wide as the distance to its k-th nearest neighbour
in the set (Kynkäänniemi et al. 2019, arXiv:1904.06991). Shapes: n and m pictures, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_AT_ONCE = 1024  # rows of a matrix of distances


class ManifoldScores(NamedTuple):
    precision: float  # share of made pictures that lie in the manifold of the real ones
    recall: float  # share of real pictures that lie in the manifold of the made ones


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> ManifoldScores:
    """real (n, D), made (m, D) features. Both shares grow with the number of pictures: compare at equal numbers.

    Raises ValueError unless both sets hold more than k pictures.
    """
    if min(len(real), len(made)) <= k or k < 1:
        raise ValueError(f"{len(real)} and {len(made)} pictures: the {k}-th neighbour needs more than {k} of each")
    return ManifoldScores(_share_within(made, real, k), _share_within(real, made, k))


def _share_within(asked: Tensor, centres: Tensor, k: int) -> float:
    radii = torch.cat([_distances(part, centres).kthvalue(k + 1).values for part in centres.split(_AT_ONCE)])
    inside = [(_distances(part, centres) <= radii).any(1) for part in asked.split(_AT_ONCE)]
    return float(torch.cat(inside).double().mean())


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Exact, not by products: a picture's distance to itself is 0, and is the first of the k + 1 nearest."""
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
