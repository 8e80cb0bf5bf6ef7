"""Who does the tasks: this process, processes of this machine, or a Ray cluster. The tasks are the same.

A task is picklable, its result small. An executor's promises: at most a bounded number of tasks is handed out at a
time; what a task raises is raised here, unchanged; a task whose worker dies is done again, and after `TRIES` deaths
named in one error; when the caller stops, by an error or a signal, the workers stop too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from data_pipelines.executors.task import Notice

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    work: Callable[[Any, Task], Result],
    shared: Any,
    tasks: Sequence[Task],
    processes: int = 1,
    *,
    ray_address: str | None = None,
    on_start: Notice = lambda task: None,
    on_lost: Notice = lambda task: None,
) -> Iterator[Result]:
    """`work(shared, task)` for each task; results come as they are ready, in any order.

    With a `ray_address` the tasks run on that cluster ("local": one that is started for them, with `processes`
    processors). `shared` is sent to each worker once. `on_start` hears of a task that is handed out, `on_lost` of
    one whose worker died. Close the iterator to stop early.
    """
    if ray_address is not None:
        from data_pipelines.executors.ray import run_on_ray

        yield from run_on_ray(work, shared, tasks, ray_address, processes, on_start, on_lost)
    elif processes > 1 and len(tasks) > 1:
        from data_pipelines.executors.processes import run_in_processes

        yield from run_in_processes(work, shared, tasks, processes, on_start, on_lost)
    else:
        for task in tasks:
            on_start(task)
            yield work(shared, task)
