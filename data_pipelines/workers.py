"""Worker processes that read batches: they outlive a stop signal, their death is one error, they end with us.

Each of the three is a departure from torch's DataLoader, whose machinery is used for everything else.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from data_pipelines.order import EpochOrder, StepPlan
from seqtok_core.foundation.errors import DataError, SeqtokError

Request = tuple[int, NDArray[np.int64]]  # (epoch, sample indices)


class Requests(Sampler):
    """The micro-batches of a rank from a global step on, as requests to workers."""

    def __init__(self, plan: StepPlan, order: EpochOrder, start_step: int) -> None:
        self._plan, self._order, self._start = plan, order, start_step

    def __iter__(self) -> Iterator[Request]:
        return self._plan.micro_batches(self._order, self._start)


def from_workers(fetch: Callable[..., Any], requests: Requests, num_workers: int, prefetch: int) -> Iterator[Any]:
    """`fetch(*request)` for each request, in order. Raises what `fetch` raises, and DataError when a worker dies."""
    loader = DataLoader(
        _Answers(fetch),
        sampler=requests,
        batch_size=None,  # a request is a whole batch
        collate_fn=_as_it_is,
        num_workers=num_workers,
        prefetch_factor=prefetch,
        worker_init_fn=_ignore_stops,
    )
    return _batches(loader)


def _batches(loader: DataLoader) -> Iterator[Any]:
    running, workers = _start(loader)
    try:
        while True:
            batch = _next(running, workers)
            if isinstance(batch, SeqtokError):
                raise batch
            yield batch
    finally:
        del running  # ends the workers now: the traceback of an error would keep them alive


def _start(loader: DataLoader) -> tuple[Iterator[Any], list[BaseProcess]]:
    others = set(multiprocessing.active_children())
    running = iter(loader)
    if threading.current_thread() is threading.main_thread():
        _watch.install()
    workers = [child for child in multiprocessing.active_children() if child.daemon and child not in others]
    # At exit multiprocessing ends its children by SIGTERM, which ours ignore: it would wait for ever.
    atexit.register(_kill, workers)
    return running, workers


def _next(running: Iterator[Any], workers: list[BaseProcess]) -> Any:
    try:
        with _watch:
            if not all(worker.is_alive() for worker in workers):
                raise RuntimeError("a worker has died since the last batch")
            return next(running)
    except (RuntimeError, EOFError, OSError):  # what it is depends on what the worker was doing
        dead = [str(worker.pid) for worker in workers if _has_died(worker)]
        if not dead:
            raise
        raise DataError(
            f"loader worker died (process {', '.join(dead)}); if memory is short, use fewer num_workers"
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
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
