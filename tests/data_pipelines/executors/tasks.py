"""What the workers of the executors' tests do; a light module, for each worker imports it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(shared: dict, task: int) -> int:
    """Task numbers choose what happens; `shared` names a folder and how often which task kills its worker."""
    deaths = shared.get("deaths", {}).get(task, 0)
    marks = Path(shared["folder"])
    if len(list(marks.glob(f"{task}-*"))) < deaths:
        (marks / f"{task}-{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task in shared.get("errors", {}):
        raise shared["errors"][task]
    return task * task


def stall(folder: str, task: int) -> None:
    (Path(folder) / f"at-{os.getpid()}").touch()
    time.sleep(3600)
