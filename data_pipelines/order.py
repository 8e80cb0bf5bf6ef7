"""In which order samples are seen: a pure function of (seed, epoch), whatever the ranks and workers are.

Shards are permuted, then samples inside windows of some shards, so that reading stays local. Global step t
of an epoch takes positions [t G, (t + 1) G) of that order, and a rank its contiguous share of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqtok_core.foundation.errors import ConfigError

_SHARDS = 0  # number of the random stream that permutes shards; window w uses 1 + w


class EpochOrder:
    """Position in an epoch -> sample index. Holds one window in memory, not the whole epoch."""

    def __init__(self, sizes: Sequence[int], seed: int, window: int, shuffle: bool = True) -> None:
        """`sizes` are samples per shard, `window` the number of shards that are mixed with each other."""
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._seed, self._window, self._shuffle = seed, window, shuffle
        self._epoch = -1
        self._cached: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    @property
    def samples(self) -> int:
        return int(self._starts[-1])

    def indices(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Sample indices at positions [start, stop) of an epoch; 0 <= start <= stop <= samples."""
        if not self._shuffle:
            return np.arange(start, stop, dtype=np.int64)
        self._open(epoch)
        parts = []
        while start < stop:
            window = int(np.searchsorted(self._ends, start, side="right"))
            first = int(self._ends[window - 1]) if window else 0
            end = min(stop, int(self._ends[window]))
            parts.append(self._window_order(window)[start - first : end - first])
            start = end
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _open(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._epoch, self._cached = epoch, (-1, self._cached[1])
        self._shards = _permutation(len(self._sizes), self._seed, epoch, _SHARDS)
        groups = range(0, len(self._shards), self._window)
        counts = [self._sizes[self._shards[g : g + self._window]].sum() for g in groups]
        self._ends = np.cumsum(counts)

    def _window_order(self, window: int) -> NDArray[np.int64]:
        if self._cached[0] != window:
            shards = self._shards[window * self._window : (window + 1) * self._window]
            members = np.concatenate([np.arange(self._starts[s], self._starts[s + 1]) for s in shards])
            mixed = members[_permutation(len(members), self._seed, self._epoch, 1 + window)]
            self._cached = (window, mixed)
        return self._cached[1]


@dataclass(frozen=True)
class StepPlan:
    """Which samples a rank takes at which global step. An incomplete last batch of an epoch is left out."""

    global_batch: int
    micro_batch: int
    rank: int = 0
    world: int = 1

    def check(self, samples: int, where: str) -> None:
        """Raises ConfigError when the sizes do not fit each other or the data."""
        if min(self.global_batch, self.micro_batch, self.world) < 1 or not 0 <= self.rank < self.world:
            raise ConfigError(f"batch sizes and world must be at least 1, and rank below world: {self}")
        if self.global_batch % (self.micro_batch * self.world):
            raise ConfigError(
                f"batch={self.global_batch} is not a multiple of micro_batch={self.micro_batch} x "
                f"{self.world} processes"
            )
        if samples < self.global_batch:
            raise ConfigError(
                f"{where}: {samples} samples do not fill a batch of {self.global_batch}; choose a smaller one"
            )

    def steps(self, samples: int) -> int:
        """Global steps per epoch."""
        return samples // self.global_batch

    def micro_batches(self, order: EpochOrder, start_step: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(epoch, sample indices) of this rank's micro-batches from a global step on, without end."""
        steps, own = self.steps(order.samples), self.global_batch // self.world
        step = start_step
        while True:
            epoch, within = divmod(step, steps)
            first = within * self.global_batch + self.rank * own
            for offset in range(first, first + own, self.micro_batch):
                yield epoch, order.indices(epoch, offset, offset + self.micro_batch)
            step += 1


def _permutation(count: int, seed: int, epoch: int, stream: int) -> NDArray[np.int64]:
    """Sorting raw Philox numbers: numpy promises the stream, but not what its shuffle makes of it."""
    bits = np.random.Philox(key=[seed, (epoch << 32) + stream])
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int64)
