"""What every executor agrees on: a task's work, its answer as a value, how often it is tried, and the progress."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from seqtok_core.foundation.errors import SeqtokError

Work = Callable[[Any, Any], Any]
Notice = Callable[[Any], None]  # gets a task
TRIES = 3  # times that a task's worker may die


@dataclass(frozen=True)
class Progress:
    """Where a preparation stands. Samples count when their shard is finished."""

    stage: Literal["names", "shards"]
    shards_done: int = 0
    shards: int = 0
    samples_done: int = 0  # in stage "names": names read
    samples: int = 0
    samples_built: int = 0  # of samples_done: in this run; the others were found finished
    shards_begun: int = 0  # handed out in this run
    workers_lost: int = 0
    bad: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)  # by reason; with the filtered ones


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
