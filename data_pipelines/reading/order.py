"""In which order samples are seen: a pure function of (seed, step), whatever the ranks and workers are.

Epochs: shards are permuted, then samples inside windows of some shards, so that reading stays local. Global step t
of an epoch takes positions [t G, (t + 1) G) of that order, and a rank its contiguous share of them.
Resampling: each sample of a step is drawn anew, with replacement, from some shards that are drawn for a while.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seqtok_core.foundation.errors import ConfigError
from seqtok_core.foundation.random_bits import RESAMPLE, philox

_SHARDS = 0  # number of the random stream that permutes shards; window w uses 1 + w


class Order(Protocol):
    """What a step's samples are taken from."""

    @property
    def samples(self) -> int: ...

    def locate(self, step: int, global_batch: int) -> tuple[int, int]:
        """(epoch, first position) of a global step."""

    def indices(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Sample indices at positions [start, stop)."""


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

    def locate(self, step: int, global_batch: int) -> tuple[int, int]:
        epoch, within = divmod(step, self.samples // global_batch)
        return epoch, within * global_batch

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


class ResampledOrder:
    """Draws with replacement; what is called epoch here is the step, since every step is drawn anew.

    For as many steps as `window` shards last, samples come from `window` drawn shards: a shard is drawn in
    proportion to its samples times its weight, then a sample evenly inside it, so that without weights every sample
    is equally likely. Where the window holds all shards, every sample of a step is drawn from all of them.
    """

    def __init__(
        self, sizes: Sequence[int], seed: int, window: int, global_batch: int, weights: Sequence[float] | None = None
    ) -> None:
        """`weights` are relative chances of a sample, one per shard. Raises ConfigError when all are zero."""
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        mass = self._sizes * (np.ones(len(sizes)) if weights is None else np.asarray(weights, dtype=np.float64))
        if mass.min() < 0 or not mass.sum() > 0:
            raise ConfigError("weights must not be negative, and leave at least one shard to draw from")
        self._chances = np.cumsum(mass) / mass.sum()
        self._seed, self._window = seed, window
        self._steps = max(1, round(window * self._sizes.mean() / global_batch))  # that drawn shards are kept for

    @property
    def samples(self) -> int:
        return int(self._starts[-1])

    def locate(self, step: int, global_batch: int) -> tuple[int, int]:
        return step, 0

    def indices(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        draws = self._raw(2 * epoch, 2 * stop)[2 * start :].reshape(-1, 2)
        if self._window >= len(self._sizes):
            shards = self._pick(draws[:, 0])
        else:
            drawn = self._pick(self._raw(2 * (epoch // self._steps) + 1, self._window))
            shards = drawn[(draws[:, 0] % np.uint64(self._window)).astype(np.int64)]
        within = draws[:, 1] % self._sizes[shards].astype(np.uint64)
        return self._starts[shards] + within.astype(np.int64)

    def _pick(self, raw: NDArray[np.uint64]) -> NDArray[np.int64]:
        return np.searchsorted(self._chances, (raw >> np.uint64(11)) * 2.0**-53, side="right")

    def _raw(self, stream: int, count: int) -> NDArray[np.uint64]:
        return philox(self._seed, RESAMPLE + stream).random_raw(count)


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

    def micro_batches(self, order: Order, start_step: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(epoch, sample indices) of this rank's micro-batches from a global step on, without end."""
        own = self.global_batch // self.world
        step = start_step
        while True:
            epoch, first = order.locate(step, self.global_batch)
            first += self.rank * own
            for offset in range(first, first + own, self.micro_batch):
                yield epoch, order.indices(epoch, offset, offset + self.micro_batch)
            step += 1


def _permutation(count: int, seed: int, epoch: int, stream: int) -> NDArray[np.int64]:
    """Sorting raw Philox numbers: numpy promises the stream, but not what its shuffle makes of it."""
    return np.argsort(philox(seed, (epoch << 32) + stream).random_raw(count), kind="stable").astype(np.int64)
