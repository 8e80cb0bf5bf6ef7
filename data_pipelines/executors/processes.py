"""Processes of this machine, spawned and not forked: the caller may hold threads and locks.

Not concurrent.futures: its pool breaks as a whole when one process is killed, and does not say at which task.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any

from data_pipelines.executors.task import TRIES, Notice, Work, attempt, gave_up, result_of

_PATIENCE = 5.0  # seconds that an idle worker has to end by itself


class _Worker:
    """One process, and the task that it has in hand."""

    def __init__(self, context: SpawnContext, work: Work, shared: Any) -> None:
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, work, shared), daemon=True)
        self.task: Any = None
        with _interrupts_blocked():
            self.process.start()
        other.close()  # so that the pipe ends when the process does

    def give(self, task: Any) -> None:
        self.task = task
        with suppress(OSError):  # it died while idle: the pipe is at its end, which `answer` reports
            self.pipe.send(task)

    def answer(self) -> tuple[bool, Any] | None:
        """None when the process died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def end(self, patience: float = 0.0) -> None:
        self.pipe.close()
        self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def run_in_processes(
    work: Work, shared: Any, tasks: Sequence[Any], processes: int, on_start: Notice, on_lost: Notice
) -> Iterator[Any]:
    """See `executors.run_tasks`."""
    context = multiprocessing.get_context("spawn")
    queue = iter(tasks)
    again: deque[Any] = deque()  # tasks whose worker died
    deaths: dict[Any, int] = {}
    workers: list[_Worker] = []
    clean = False
    try:
        for _ in range(min(processes, len(tasks))):
            workers.append(_Worker(context, work, shared))
        idle = list(workers)
        while True:
            while idle and (task := again.popleft() if again else next(queue, None)) is not None:
                on_start(task)
                idle.pop().give(task)
            busy = {worker.pipe: worker for worker in workers if worker.task is not None}
            if not busy:
                break
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                answer, task = worker.answer(), worker.task
                worker.task = None
                if answer is not None:
                    idle.append(worker)
                    yield result_of(answer)
                    continue
                worker.end(_PATIENCE)
                deaths[task] = deaths.get(task, 0) + 1
                if deaths[task] >= TRIES:
                    raise gave_up(task, _how(worker.process.exitcode))
                on_lost(task)
                again.append(task)
                workers[workers.index(worker)] = fresh = _Worker(context, work, shared)
                idle.append(fresh)
        clean = True
    finally:
        for worker in workers:
            worker.pipe.close()  # tells an idle worker to end
        for worker in workers:
            worker.end(_PATIENCE if clean else 0.0)


def _serve(pipe: Connection, work: Work, shared: Any) -> None:
    """In a worker: answer tasks until the pipe ends; end at once when the parent does, even by kill -9."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(attempt(work, shared, task))
        except OSError:  # nobody listens any more
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C goes to every process of a terminal; workers inherit this mask and leave it to the parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"signal {name}; out of memory?" if -status == signal.SIGKILL else f"signal {name}"
    return f"exit status {status}"
