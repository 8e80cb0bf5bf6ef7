"""Worker processes that read batches: they outlive a stop signal, their death is one error, they end with us.

Each of the three is a departure from torch's DataLoader, whose machinery is used for everything else.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from data_pipelines.reading.order import Order, StepPlan
from seqtok_core.foundation.errors import DataError, SeqtokError
from seqtok_core.foundation.machine import require_open_files

_FILES_PER_BATCH = 8  # a tensor on its way between processes is a file
_OTHER_FILES = 48  # what a run opens later: shards, sockets, logs; a training took 96 with two workers
Request = tuple[int, NDArray[np.int64]]  # (epoch, sample indices)


@dataclass(frozen=True)
class WorkerOptions:
    """How batches are fetched; none of this changes a batch of a local data set."""

    num_workers: int
    prefetch: int = 2  # batches per worker
    start_method: str | None = None
    pin_memory: bool = False


class Trace:
    """Where each worker reads: it writes the index of a sample before it reads it, where the trainer can see it."""

    def __init__(self, num_workers: int, place: Callable[[int], str]) -> None:
        self._at = torch.full((num_workers,), -1, dtype=torch.int64).share_memory_()
        self._place = place  # index -> shard and key

    def __call__(self, index: int) -> None:
        worker = get_worker_info()
        if worker is not None:
            self._at[worker.id] = index

    def last(self, worker: int) -> str:
        index = int(self._at[worker])
        return f" while reading {self._place(index)}" if index >= 0 else " before it read anything"

    def __getstate__(self) -> dict[str, Any]:
        return {"_at": self._at, "_place": str}  # the place is asked for by the trainer alone


class Requests(Sampler):
    """The micro-batches of a rank from a global step on, as requests to workers."""

    def __init__(self, plan: StepPlan, order: Order, start_step: int) -> None:
        self._plan, self._order, self._start = plan, order, start_step

    def __iter__(self) -> Iterator[Request]:
        return self._plan.micro_batches(self._order, self._start)


def from_workers(fetch: Callable[..., Any], requests: Requests, options: WorkerOptions, trace: Trace) -> Iterator[Any]:
    """`fetch(*request)` for each request, in order. Raises what `fetch` raises, and DataError when a worker dies."""
    return _batches(_loader(_Answers(fetch), options, sampler=requests), trace)


def stream_from_workers(batches: IterableDataset, options: WorkerOptions, trace: Trace) -> Iterator[Any]:
    """What each worker's copy of `batches` yields, the workers taking turns; errors as in `from_workers`."""
    return _batches(_loader(batches, options), trace)


def _loader(dataset: Dataset, options: WorkerOptions, **more: Any) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=None,  # an item is a whole batch
        collate_fn=_as_it_is,
        num_workers=options.num_workers,
        prefetch_factor=options.prefetch,
        worker_init_fn=_ignore_stops,
        multiprocessing_context=options.start_method,
        pin_memory=options.pin_memory,
        **more,
    )


def _batches(loader: DataLoader, trace: Trace) -> Iterator[Any]:
    running, workers = _start(loader)
    try:
        while True:
            batch = _next(running, workers, trace)
            if isinstance(batch, SeqtokError):
                raise batch
            yield batch
    finally:
        del running  # ends the workers now: the traceback of an error would keep them alive


def _start(loader: DataLoader) -> tuple[Iterator[Any], list[BaseProcess]]:
    batches = loader.num_workers * (int(loader.prefetch_factor or 1) + 1)
    require_open_files(batches * _FILES_PER_BATCH + _OTHER_FILES, f"{loader.num_workers} loader workers")
    running = iter(loader)
    if threading.current_thread() is threading.main_thread():
        _watch.install()
    workers: list[BaseProcess] = list(running._workers)  # type: ignore[attr-defined]  # by number
    # At exit multiprocessing ends its children by SIGTERM, which ours ignore: it would wait for ever.
    atexit.register(_kill, workers)
    return running, workers


def _next(running: Iterator[Any], workers: list[BaseProcess], trace: Trace) -> Any:
    try:
        with _watch:
            if not all(worker.is_alive() for worker in workers):
                raise RuntimeError("a worker has died since the last batch")
            return next(running)
    except (RuntimeError, EOFError, OSError):  # what it is depends on what the worker was doing
        dead = [n for n, worker in enumerate(workers) if _has_died(worker)]
        if not dead:
            raise
        # A killed worker may have held a lock that torch's orderly shutdown would wait for without end.
        _kill(workers)
        running._shutdown = True  # type: ignore[attr-defined]
        named = "; ".join(f"worker {n} (process {workers[n].pid}){trace.last(n)}" for n in dead)
        raise DataError(
            f"a loader worker died: {named}. If memory or /dev/shm is short, use fewer `num_workers`; "
            "`verify_folder()` looks at the shard"
        ) from None


class _Watch:
    """Lets torch's SIGCHLD handler raise only while a batch is waited for.

    The handler is needed there: reading from a worker that dies in the middle of a message would never end.
    Anywhere else it would raise in the middle of a training step.
    """

    def __init__(self) -> None:
        self._waiting = False
        self._handler: Callable[[int, FrameType | None], Any] | None = None

    def install(self) -> None:
        handler = signal.getsignal(signal.SIGCHLD)
        if handler != self._on_child and callable(handler):
            self._handler = handler
            signal.signal(signal.SIGCHLD, self._on_child)

    def __enter__(self) -> None:
        self._waiting = True

    def __exit__(self, *error: object) -> None:
        self._waiting = False

    def _on_child(self, number: int, frame: FrameType | None) -> None:
        if self._waiting and self._handler is not None:
            self._handler(number, frame)


_watch = _Watch()  # signal handlers belong to the process, and so does this


class _Answers(Dataset):
    """A map from requests to batches. An error of ours travels back as a value, without a traceback in it."""

    def __init__(self, fetch: Callable[..., Any]) -> None:
        self._fetch = fetch

    def __getitem__(self, request: Request) -> object:
        try:
            return self._fetch(*request)
        except SeqtokError as error:
            return error


def _has_died(worker: BaseProcess) -> bool:
    worker.join(timeout=1.0)  # its socket closes a little before it counts as dead
    return not worker.is_alive()


def _kill(workers: list[BaseProcess]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()


def _as_it_is(batch: object) -> object:
    return batch


def _ignore_stops(worker: int) -> None:
    """A signal to the whole process group must leave workers alive until the trainer has saved its state."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
