"""Muon's core: the nearest (half-)orthogonal matrix, by Newton-Schulz iteration, for many matrices at once.

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; the form for wide matrices from
tridao.me/blog/2026/gram-newton-schulz.
torch.optim.Muon always iterates in bfloat16, one matrix after the other. Here equal shapes share one batched
product and the iteration has the precision of the run: in bf16 a difference of 1e-7 between two runs becomes
1e-2 of the loss within 200 steps (fp32: 1e-5), and a processor without bf16 arithmetic needs 30 times
as long.
Shapes: N matrices of R rows and C columns.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic with the steepest slope at zero
_STEPS = 5


def newton_schulz(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, R, C) with R <= C -> the same in `dtype`: singular values moved to about 1, vectors kept."""
    x = (matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype)
    if dtype == torch.float32 and matrices.shape[-1] >= 2 * matrices.shape[-2]:
        return _gram_iteration(x) @ x
    for _ in range(_STEPS):
        gram = x @ x.mT
        inner = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, inner, x, beta=_A)
    return x


def _gram_iteration(x: Tensor) -> Tensor:
    """(N, R, C) -> (N, R, R), the factor that one multiplies x with.

    Every iterate is q @ x, and its Gram matrix follows from the last one, so only R x R products are needed:
    half the time of the plain form at C = 4 R. Safe in fp32; half precision would need a restart.
    """
    gram, factor = x @ x.mT, x.new_empty(0)
    for step in range(_STEPS):
        inner = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        if step == 0:
            factor = inner.clone()
            factor.diagonal(dim1=-2, dim2=-1).add_(_A)
        else:
            factor = torch.baddbmm(factor, inner, factor, beta=_A)
        if step < _STEPS - 1:
            half = torch.baddbmm(gram, inner, gram, beta=_A)
            gram = torch.baddbmm(half, inner, half, beta=_A)
    return factor


def orthogonalise(matrices: list[Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Each (R, C) fp32 -> sqrt(max(1, R / C)) times its orthogonal neighbour, in the order given.

    The factor makes the change of the layer's output as large for tall matrices as for wide ones (Jordan's
    original scaling, torch's adjust_lr_fn="original"); a learning rate then fits all shapes.
    """
    by_shape: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for number, matrix in enumerate(matrices):
        by_shape[(min(matrix.shape), max(matrix.shape))].append(number)
    result: list[Tensor] = [*matrices]
    for numbers in by_shape.values():
        wide = [matrices[n].mT if matrices[n].shape[0] > matrices[n].shape[1] else matrices[n] for n in numbers]
        for number, answer in zip(numbers, newton_schulz(torch.stack(wide), dtype).float().unbind(), strict=True):
            rows, cols = matrices[number].shape
            result[number] = answer.mT.mul(math.sqrt(rows / cols)) if rows > cols else answer
    return result
