"""Batches from sample indices, in this process or in worker processes, always in the same order."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch.utils.data import DataLoader, Dataset, Sampler

from data_pipelines.order import EpochOrder, StepPlan
from data_pipelines.shards import ShardSet
from data_pipelines.tar_source import OnBadShard
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import DataError, SeqtokError

Batch = TypeVar("Batch")
Request = tuple[int, NDArray[np.int64]]  # (epoch, sample indices)
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
    loader = DataLoader(
        _Requests(fetch),
        sampler=_Steps(plan, order, start_step),
        batch_size=None,  # a request is a whole batch
        collate_fn=_as_it_is,
        num_workers=num_workers,
        prefetch_factor=prefetch,
        worker_init_fn=_ignore_sigterm,
    )
    return _from_workers(loader)


def _from_workers(loader: DataLoader) -> Iterator[Any]:
    batches, workers = _start(loader)
    try:
        for batch in batches:
            if isinstance(batch, SeqtokError):
                raise batch
            yield batch
    except (RuntimeError, EOFError, OSError) as error:  # what torch raises depends on what the worker was doing
        dead = [str(worker.pid) for worker in workers if not worker.is_alive()]
        if not dead:
            raise
        raise DataError(
            f"loader worker died (process {', '.join(dead)}); if memory is short, use fewer num_workers"
        ) from error
    finally:
        del batches  # ends the workers now: the traceback of an error would keep them alive


def _start(loader: DataLoader) -> tuple[Iterator[Any], list[BaseProcess]]:
    """Start the workers, without torch's SIGCHLD handler: when a worker dies it raises wherever the program is at
    that moment, in the middle of a training step. The iterator notices the death itself, within 5 seconds.
    """
    handler, others = signal.getsignal(signal.SIGCHLD), set(multiprocessing.active_children())
    batches = iter(loader)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)
    workers = [child for child in multiprocessing.active_children() if child.daemon and child not in others]
    # At exit multiprocessing ends its children by SIGTERM, which ours ignore: it would wait for ever.
    atexit.register(_kill, workers)
    return batches, workers


def _kill(workers: list[BaseProcess]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()


class _Requests(Dataset):
    """A map from requests to batches. An error of ours travels back as a value, without a traceback in it."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def __getitem__(self, request: Request) -> object:
        try:
            return self._fetch(*request)
        except SeqtokError as error:
            return error


class _Steps(Sampler):
    def __init__(self, plan: StepPlan, order: EpochOrder, start_step: int) -> None:
        self._plan, self._order, self._start = plan, order, start_step

    def __iter__(self) -> Iterator[Request]:
        return self._plan.micro_batches(self._order, self._start)


def _as_it_is(batch: object) -> object:
    return batch


def _ignore_sigterm(worker: int) -> None:
    """A signal to the whole process group must leave workers alive until the trainer has saved its state."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
