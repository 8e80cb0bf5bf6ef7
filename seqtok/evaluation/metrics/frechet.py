"""Fréchet distance between two sets of pictures in a fixed network's features (Heusel et al. 2017, arXiv:1706.08500).

Shapes: n and m pictures, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """a (n, D), b (m, D) -> |mean difference|^2 + tr(A + B - 2 (A B)^1/2) of the covariances, 0 for equal laws.

    It shrinks with the number of pictures even for equal laws: compare at equal numbers, beside the distance of two
    sets of real pictures. Raises ValueError for fewer than two pictures.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} pictures: a covariance needs two of each")
    a, b = a.double(), b.double()
    root = _root(torch.cov(a.T))
    mixed = torch.linalg.eigvalsh(root @ torch.cov(b.T) @ root).clamp(min=0).sqrt().sum()
    spread = a.var(0).sum() + b.var(0).sum() - 2 * mixed
    return float((a.mean(0) - b.mean(0)).square().sum() + spread)


def _root(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix without negative directions."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
