"""Who does the tasks: this process, or a pool of processes. A task is picklable and its result small."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from seqtok_core.foundation.errors import SeqtokError

Task = TypeVar("Task")
Result = TypeVar("Result")
_shared: list[Any] = []  # in a worker: what all tasks share, sent once


def run_tasks(
    work: Callable[[Any, Task], Result], shared: Any, tasks: Sequence[Task], processes: int = 1
) -> Iterator[Result]:
    """`work(shared, task)` for each task; results come as they are ready. Errors of a task are raised here.

    Processes are spawned, not forked: the caller may hold threads and locks.
    """
    if processes <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield work(shared, task)
        return
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(tasks))
    with ProcessPoolExecutor(workers, context, initializer=_share, initargs=(work, shared)) as pool:
        try:
            for future in as_completed([pool.submit(_call, task) for task in tasks]):
                yield future.result()
        except BrokenProcessPool:
            raise SeqtokError(
                "a worker process died (out of memory, or killed); what is finished is kept: start the same "
                "command again, with fewer --processes if memory is short"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _share(work: Callable[[Any, Any], Any], shared: Any) -> None:
    _shared[:] = [work, shared]


def _call(task: Any) -> Any:
    work, shared = _shared
    return work(shared, task)
