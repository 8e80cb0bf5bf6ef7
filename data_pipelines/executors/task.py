"""What every executor agrees on: a task's work, its answer as a value, and how often it is tried."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any

from seqtok_core.foundation.errors import SeqtokError

Work = Callable[[Any, Any], Any]
Notice = Callable[[Any], None]  # gets a task
TRIES = 3  # times that a task's worker may die


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
