"""Random bits as a function of (seed, stream, counters): Philox (Salmon et al. 2011), whose stream numpy promises."""

from __future__ import annotations

import numpy as np

# Where the streams of each use begin. Epoch orders take those below 2**62.
AUGMENT, RESAMPLE, STREAMED, SAMPLED = 1 << 62, 2 << 62, 3 << 62, 7 << 61


def philox(seed: int, stream: int, first: int = 0, second: int = 0) -> np.random.Philox:
    """A generator of its own for each (seed, stream, first, second), all of them below 2**64."""
    # As arrays: numpy would make a list with numbers above 2**63 one of floats, and streams would coincide.
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, first, second, 0], dtype=np.uint64))


def fractions(bits: np.random.Philox, count: int) -> np.ndarray:
    """(count,) float64 in [0, 1)."""
    return (bits.random_raw(count) >> np.uint64(11)) * 2.0**-53
