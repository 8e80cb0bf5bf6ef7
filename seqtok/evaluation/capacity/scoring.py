"""How much of what was drawn is read back, in characters and in bits.

Bits are a lower bound by Fano's inequality, so that they never flatter a code: a character X of A equally likely ones
that is named wrongly in a share e of cells is known to within H(X | read) <= h(e) + e log2(A - 1), h the binary entropy
(Cover and Thomas, Elements of Information Theory, 2.10). Which cells are filled carries bits as well; they are not
counted. Characters are drawn independently, so bits add up, and the sum bounds what the code says of them all.
Shapes: B pages, N = 64 cells, A characters; class A is the empty cell.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from seqtok.evaluation.metrics.intervals import bootstrap_interval


def character_accuracy(read: Tensor, truth: Tensor, alphabet_size: int) -> Tensor:
    """read, truth (B, N) int64 -> (B,) share of each page's characters that are named rightly in their cells."""
    drawn = truth < alphabet_size
    return ((read == truth) & drawn).sum(1) / drawn.sum(1)


def invented_share(read: Tensor, truth: Tensor, alphabet_size: int) -> float | None:
    """Share of the empty cells in which a character is read; None where no cell is empty."""
    empty = truth == alphabet_size
    return float((read[empty] < alphabet_size).float().mean()) if empty.any() else None


def chance_accuracy(alphabet_size: int) -> float:
    """What naming any one character in every cell would reach, exactly: characters are equally likely."""
    return 1.0 / alphabet_size


def character_bits(accuracy: float, alphabet_size: int) -> float:
    """What one character of A is known to say at least, in bits, when this share of them is named rightly: log2 A where
    all are, 0 at chance and below."""
    wrong = 1.0 - accuracy
    if accuracy <= chance_accuracy(alphabet_size):
        return 0.0
    whole = math.log2(alphabet_size)
    if wrong <= 0:
        return whole
    entropy = -wrong * math.log2(wrong) - accuracy * math.log2(accuracy)
    return max(0.0, whole - entropy - wrong * math.log2(alphabet_size - 1))


def capacity_row(read: Tensor, real: Tensor, truth: Tensor, alphabet_size: int) -> dict[str, Any]:
    """Pages of n characters each, read from reconstructions and from the real pages, all (B, N) int64.

    -> accuracy with its interval (pages resampled), chance, ceiling, the share of empty cells with an invented
    character, of pages that are right in every cell, and bits per page: drawn, and recovered with its interval.
    """
    right = character_accuracy(read, truth, alphabet_size)
    value, (low, high) = float(right.double().mean()), bootstrap_interval(right)
    count = int((truth[0] < alphabet_size).sum())
    bits, bits_low, bits_high = (count * character_bits(share, alphabet_size) for share in (value, low, high))
    return {
        "value": value,
        "low": low,
        "high": high,
        "chance": chance_accuracy(alphabet_size),
        "ceiling": float(character_accuracy(real, truth, alphabet_size).double().mean()),
        "invented": invented_share(read, truth, alphabet_size),
        "pages_right": float((read == truth).all(1).double().mean()),
        "pages": len(truth),
        "bits_drawn": count * math.log2(alphabet_size),
        "bits": bits,
        "bits_low": bits_low,
        "bits_high": bits_high,
    }
