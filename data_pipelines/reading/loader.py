"""Batches from sample indices, in this process or in worker processes, always in the same order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from data_pipelines.reading.order import EpochOrder, Order, ResampledOrder, StepPlan
from data_pipelines.reading.workers import Requests, Trace, WorkerOptions, from_workers
from data_pipelines.shards.shard_set import ShardSet
from data_pipelines.sources.derived.shuffled import CAPTION, sorted_by
from data_pipelines.tars.index import OnBadShard
from seqtok_core.foundation.config import LATER, RESUMABLE, Config
from seqtok_core.foundation.errors import ConfigError, DataError

Batch = TypeVar("Batch", bound=Any)
Fetch = Callable[[int, NDArray[np.int64]], Batch]

_AUTO_CACHE = 512 * 2**20  # bytes of samples that are kept in memory without being asked


class FetchConfig(Config):
    """Workers, prefetching, pinning and the cache: none of it changes a batch."""

    num_workers: Annotated[int, Field(ge=0), RESUMABLE] = 0  # processes; 0 reads in this one
    prefetch: Annotated[int, Field(ge=1), RESUMABLE] = 2  # batches per worker
    start_method: Annotated[Literal["fork", "spawn", "forkserver"] | None, RESUMABLE] = None  # None: Python's own
    pin_memory: Annotated[bool | None, RESUMABLE] = None  # page-locked batches; None: where there is a GPU
    cache: Annotated[bool | None, RESUMABLE] = None  # samples stay in memory; None: if small and without workers

    def keeps(self, bytes_needed: int) -> bool:
        """Whether samples of this many bytes in all are kept in memory."""
        small = bytes_needed <= _AUTO_CACHE and self.num_workers == 0
        return small if self.cache is None else self.cache

    def worker_options(self) -> WorkerOptions:
        pin = torch.cuda.is_available() and self.pin_memory is not False
        return WorkerOptions(self.num_workers, self.prefetch, self.start_method, pin)


class ReadConfig(FetchConfig):
    """How a split is read."""

    levels: Annotated[int, Field(ge=1)] | None = None  # L; None: the data set's longest pyramid
    max_tokens: Annotated[int, Field(ge=1)] = 32  # T; longer captions are cut, counted and warned of
    # Share of samples whose captions are told, chosen by their keys: the same in every epoch and stage. The others are
    # pictures without a word.
    captioned_share: Annotated[float, Field(ge=0, le=1), LATER] = 1.0
    mode: Literal["epoch", "resample"] = "epoch"  # each sample once per epoch, or drawn with replacement
    weights: Mapping[str, Annotated[float, Field(ge=0)]] = {}  # resample: pattern of a shard's name -> relative chance
    shuffle: bool = True  # epoch: mixed, or as stored
    window: Annotated[int, Field(ge=1)] = 8  # shards mixed with each other
    on_bad_shard: OnBadShard = "error"


class SplitLoader(Generic[Batch]):
    """A rank's endless stream of micro-batches of one split. Position = number of global steps."""

    def __init__(self, fetch: Fetch[Batch], shards: ShardSet, plan: StepPlan, config: ReadConfig, seed: int) -> None:
        """Raises ConfigError when the batch sizes do not fit each other or the data."""
        self.shards = shards  # classes, levels, fingerprint, skipped shards
        self.fingerprint = shards.fingerprint
        self.global_batch = plan.global_batch
        self._fetch, self._plan, self._config = fetch, plan, config
        plan.check(len(shards), str(shards.paths[0].parent))
        self._order = order_of(shards, config, seed, plan.global_batch)
        if config.mode == "epoch" and config.shuffle and plan.rank == 0 and len(shards.sizes) > config.window:
            _warn_of_sorted(shards, config.window)
        shards.hold(2 * config.window)  # a batch may lie across two windows

    @property
    def steps_per_epoch(self) -> int:
        return self._plan.steps(len(self.shards))

    @property
    def samples(self) -> int:
        """Samples of one epoch; the incomplete last batch is left out."""
        return self.steps_per_epoch * self.global_batch

    def iterate(self, start_step: int = 0) -> Iterator[Batch]:
        """Micro-batches from global step `start_step` on, those of one step one after another; the same for
        every number of workers.
        """
        return fetched(self._fetch, self._plan, self._order, start_step, self._config, self.shards)


def fetched(
    fetch: Fetch[Batch], plan: StepPlan, order: Order, start_step: int, config: FetchConfig, shards: ShardSet
) -> Iterator[Batch]:
    """What `fetch` makes of a rank's micro-batches, in this process or in workers; `shards` is what it reads."""
    options = config.worker_options()
    if options.num_workers == 0:
        requests = plan.micro_batches(order, start_step)
        batches = (fetch(epoch, indices) for epoch, indices in requests)
        return (batch.pin_memory() for batch in batches) if options.pin_memory else batches
    trace = Trace(options.num_workers, shards.place)
    shards.on_read = trace  # the workers' copies tell where they are
    return from_workers(fetch, Requests(plan, order, start_step), options, trace)


def _warn_of_sorted(shards: ShardSet, window: int) -> None:
    """Shards are mixed some at a time: of sorted classes a batch then holds few."""

    def look(index: int) -> dict[str, Any]:
        try:
            record = shards.record(index)
        except DataError:  # whoever trains on it meets it again
            return {}
        return {**record.labels, CAPTION: record.captions[:1]}

    label = sorted_by(len(shards), look)
    shards.close()
    if label is not None:
        warnings.warn(
            f"{shards.paths[0].parent}: its samples come sorted by {label}, and {window} of {len(shards.sizes)} shards "
            "are mixed at a time, so that a batch holds few classes; prepare it anew, which shuffles it, or widen the "
            "loader's window",
            stacklevel=3,
        )


def order_of(shards: ShardSet, config: ReadConfig, seed: int, global_batch: int) -> Order:
    """Raises ConfigError for weights that fit no shard, or are not asked for."""
    if config.mode == "epoch":
        if config.weights:
            raise ConfigError("weights are for mode: resample; in mode: epoch every sample comes once")
        return EpochOrder(shards.sizes, seed, config.window, config.shuffle)
    names = [path.name for path in shards.paths]
    for pattern in config.weights:
        if not any(fnmatch(name, pattern) for name in names):
            raise ConfigError(f"weights: no shard's name fits {pattern!r}; the first one is {names[0]}")
    weights = [_weight(name, config.weights) for name in names]
    return ResampledOrder(shards.sizes, seed, config.window, global_batch, weights)


def _weight(name: str, weights: Mapping[str, float]) -> float:
    """Of the first pattern that fits; 1 where none does."""
    return next((weight for pattern, weight in weights.items() if fnmatch(name, pattern)), 1.0)
