"""A thread beside the training: it ends a process that hangs, and asks one to stop whose launcher is gone.

A hang (a process that never reaches a collective, a file system that does not answer) is otherwise silent and
costs all GPUs. The launcher's end is otherwise silent too: SIGTERM to `deepspeed` ends the command and leaves its
workers running, which then hold the port and the run folder.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import psutil

from seqtok_core.training.processes.distributed import World

_TICK_S = 1.0
HANG = "hang_process_{rank}.txt"


class Watch:
    """A context manager. `on_orphan` is called once, from the thread, when the launcher has ended."""

    def __init__(self, world: World, folder: Path, timeout_s: float, on_orphan: Callable[[str], None]) -> None:
        self._world, self._folder, self._timeout = world, folder, timeout_s
        self._on_orphan = on_orphan
        self._doing, self._beats = ("before step", 1), 0
        self._launchers = _launchers() if world.size > 1 else []
        self._main = threading.main_thread().ident
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="seqtok watch", daemon=True)

    def beat(self, doing: str, step: int) -> None:
        """Called at every step: there is progress, and `doing` comes next."""
        self._doing = (doing, step)
        self._beats += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        tick = min(_TICK_S, self._timeout / 4)
        seen, idle, last = -1, 0.0, time.monotonic()
        while not self._ended.wait(tick):
            now = time.monotonic()
            idle += min(now - last, 2 * tick)  # a process that was suspended as a whole (Ctrl-Z) does not hang
            last = now
            if self._beats != seen:
                seen, idle = self._beats, 0.0
            if idle > self._timeout:
                self._end()
            if self._launchers and not all(_is_running(launcher) for launcher in self._launchers):
                self._launchers = []
                self._on_orphan("the launcher's end")

    def _end(self) -> None:
        """Say where this process stands, then leave without any clean-up, which would hang as well."""
        where = _place(sys._current_frames().get(self._main or 0))
        path = self._folder / HANG.format(rank=self._world.rank)
        message = (
            f"{self._folder}: process {self._world.rank} of {self._world.size} {where}, without progress for "
            f"{self._timeout / 60:.3g} min ({self._doing[0]} {self._doing[1]}); all stacks are in {path.name}. Raise "
            "`timeout_minutes` if this may take longer; the same command continues"
        )
        try:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(message + "\n\n")
                stream.flush()
                faulthandler.dump_traceback(stream, all_threads=True)
        except OSError:
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        os.write(2, f"seqtok: {message}\n".encode())
        os._exit(1)


def _place(frame: FrameType | None) -> str:
    """The innermost frame of ours, and whether it waits for other processes."""
    waits, ours = False, ""
    while frame is not None and not ours:
        file = frame.f_code.co_filename
        waits = waits or os.path.join("torch", "distributed") in file
        if os.path.join("site-packages", "") not in file and os.path.join("lib", "python") not in file:
            ours = f"{os.path.basename(file)}:{frame.f_lineno} ({frame.f_code.co_name})"
        frame = frame.f_back
    return f"waits for the others at {ours}" if waits else f"hangs at {ours or 'an unknown place'}"


def _launchers() -> list[psutil.Process]:
    """Processes without which this one shall not go on.

    torchrun's agent is the parent. `deepspeed` starts deepspeed.launcher.launch, which starts this process: it
    is the first of the three that a signal ends, and the second outlives it.
    """
    try:
        parent = psutil.Process().parent()
        if parent is None:
            return []
        if "deepspeed.launcher.launch" in parent.cmdline():
            return [p for p in (parent, parent.parent()) if p is not None and p.pid != 1]
        return [parent] if "TORCHELASTIC_RUN_ID" in os.environ else []
    except psutil.Error:
        return []


def _is_running(process: psutil.Process) -> bool:
    """psutil tells a process from a later one with its number, without the system's clock."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
