"""Random bits as a function of (seed, stream, counters): Philox (Salmon et al. 2011), whose stream numpy promises."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Where the streams of each use begin. Epoch orders take those below 2**62.
AUGMENT, RESAMPLE, PREPARED, STREAMED, SAMPLED = 1 << 62, 2 << 62, 5 << 61, 3 << 62, 7 << 61
_ROUNDS = 6


def philox(seed: int, stream: int, first: int = 0, second: int = 0) -> np.random.Philox:
    """A generator of its own for each (seed, stream, first, second), all of them below 2**64."""
    # As arrays: numpy would make a list with numbers above 2**63 one of floats, and streams would coincide.
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, first, second, 0], dtype=np.uint64))


def fractions(bits: np.random.Philox, count: int) -> np.ndarray:
    """(count,) float64 in [0, 1)."""
    return (bits.random_raw(count) >> np.uint64(11)) * 2.0**-53


def permuted(places: NDArray[np.int64], count: int, seed: int, stream: int) -> NDArray[np.int64]:
    """What stands at each of `places` in a permutation of [0, count); no table is kept.

    A Feistel network (Luby and Rackoff 1988) over a power of four, walked on until it lands below `count` (Black and
    Rogaway 2002): on average fewer than four times.
    """
    half = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))  # bits
    keys = philox(seed, stream).random_raw(_ROUNDS)
    found = places.astype(np.uint64)
    outside = np.ones(found.shape, np.bool_)
    while outside.any():
        found[outside] = _feistel(found[outside], half, keys)
        outside = found >= count
    return found.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of the numbers of 2 * half bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        mixed = (right ^ key) * np.uint64(0xBF58476D1CE4E5B9)  # as SplitMix64 mixes; products wrap around
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & mask)
    return (left << half) | right
