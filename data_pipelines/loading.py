"""Batches from sample indices, in this process or in worker processes, always in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_pipelines.order import EpochOrder, StepPlan
from data_pipelines.shards import ShardSet
from data_pipelines.tar_source import OnBadShard
from data_pipelines.workers import Requests, from_workers
from seqtok_core.foundation.config import Config

Batch = TypeVar("Batch")
Fetch = Callable[[int, NDArray[np.int64]], Batch]

_AUTO_CACHE = 512 * 2**20  # bytes of samples that are kept in memory without being asked


class ReadConfig(Config):
    """How a split is read. Workers, prefetching and the cache change no batch."""

    num_workers: Annotated[int, Field(ge=0)] = 0  # processes; 0 reads in this one
    prefetch: Annotated[int, Field(ge=1)] = 2  # batches per worker
    cache: bool | None = None  # read once, keep in memory; None: if small enough and without workers
    levels: Annotated[int, Field(ge=1)] | None = None  # L; None: the data set's longest pyramid
    max_tokens: Annotated[int, Field(ge=1)] = 32  # T; longer captions are cut, counted and warned of
    shuffle: bool = True
    window: Annotated[int, Field(ge=1)] = 8  # shards mixed with each other
    on_bad_shard: OnBadShard = "error"

    def keeps(self, bytes_needed: int) -> bool:
        """Whether samples of this many bytes in all are kept in memory."""
        small = bytes_needed <= _AUTO_CACHE and self.num_workers == 0
        return small if self.cache is None else self.cache


class SplitLoader(Generic[Batch]):
    """A rank's endless stream of micro-batches of one split. Position = number of global steps."""

    def __init__(self, fetch: Fetch[Batch], shards: ShardSet, plan: StepPlan, config: ReadConfig, seed: int) -> None:
        """Raises ConfigError when the batch sizes do not fit each other or the data."""
        self.shards = shards  # classes, levels, fingerprint, skipped shards
        self.global_batch = plan.global_batch
        self._fetch, self._plan, self._config = fetch, plan, config
        self._order = EpochOrder(shards.sizes, seed, config.window, config.shuffle)
        plan.check(len(shards), str(shards.paths[0].parent))

    @property
    def steps_per_epoch(self) -> int:
        return self._plan.steps(len(self.shards))

    @property
    def samples(self) -> int:
        """Samples of one epoch; the incomplete last batch is left out."""
        return self.steps_per_epoch * self.global_batch

    def iterate(self, start_step: int = 0) -> Iterator[Batch]:
        """Micro-batches from global step `start_step` on, those of one step one after another."""
        config = self._config
        return stream(self._fetch, self._plan, self._order, start_step, config.num_workers, config.prefetch)


def stream(
    fetch: Fetch[Batch], plan: StepPlan, order: EpochOrder, start_step: int, num_workers: int, prefetch: int
) -> Iterator[Batch]:
    """This rank's micro-batches from a global step on, without end; the same for every number of workers."""
    if num_workers == 0:
        return (fetch(epoch, indices) for epoch, indices in plan.micro_batches(order, start_step))
    return from_workers(fetch, Requests(plan, order, start_step), num_workers, prefetch)
