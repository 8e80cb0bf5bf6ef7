"""Who does the tasks: this process, processes of this machine, or a Ray cluster. The tasks are the same.

A task is picklable, its result small. An executor's promises: at most a bounded number of tasks is handed out at a
time; what a task raises is raised here, unchanged; a task whose worker dies is done again, and after `TRIES` deaths
named in one error; when the caller stops, by an error or a signal, the workers stop too.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from seqtok_core.foundation.errors import SeqtokError

Task = TypeVar("Task")
Result = TypeVar("Result")
Work = Callable[[Any, Any], Any]
Notice = Callable[[Any], None]  # gets a task
TRIES = 3  # times that a task's worker may die


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
        from data_pipelines.ray_engine import run_on_ray

        yield from run_on_ray(work, shared, tasks, ray_address, processes, on_start, on_lost)
    elif processes > 1 and len(tasks) > 1:
        from data_pipelines.process_engine import run_in_processes

        yield from run_in_processes(work, shared, tasks, processes, on_start, on_lost)
    else:
        for task in tasks:
            on_start(task)
            yield work(shared, task)


def attempt(work: Work, shared: Any, task: Any) -> tuple[bool, Any]:
    """In a worker: (True, result) or (False, error), which travels as a value. `result_of` undoes it."""
    try:
        return True, work(shared, task)
    except MemoryError:
        return False, SeqtokError(f"{task}: out of memory; use fewer processes at a time, or smaller shards")
    except Exception as error:
        if not isinstance(error, SeqtokError):
            error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error class that cannot travel
            return False, RuntimeError("".join(traceback.format_exception(error)))
        return False, error


def result_of(answer: tuple[bool, Any]) -> Any:
    done, value = answer
    if not done:
        raise value
    return value


def gave_up(task: Any, why: str) -> SeqtokError:
    return SeqtokError(
        f"{task}: its worker died {TRIES} times ({why}); what is finished is kept. If memory is short, use fewer "
        "processes or smaller shards; then start the same command again"
    )
