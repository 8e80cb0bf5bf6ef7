"""What makes a folder a run of ours, and what a run that was asked to stop leaves for a scheduler.

run.json is the record: written at a run's start before anything else. Only a folder that has it, or what runs left
before there were records, counts as a run, and only a run may be cleared. preempted.json lies there from a stop until
the next start. Nothing heavy is imported: a command uses this before it loads what trains.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from seqtok_core.foundation import files
from seqtok_core.foundation.errors import DataError, Preempted, SeqtokError

RECORD, PREEMPTED, SETTINGS, ENVIRONMENT = "run.json", "preempted.json", "config.yaml", "environment.json"
# SIGUSR1: what SLURM's --signal is usually told to send; SIGHUP: the terminal or the connection is gone, and torchrun,
# which ends with it, hands it to its processes.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
SAME_REQUEST_S = 3.0  # a launcher passes on what the whole process group has received already
_KIND = "seqtok run"


def heard_signals() -> list[signal.Signals]:
    """What asks a run to stop; not the hang-up where `nohup` or a shell asked that it be ignored."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if not (nohup and number is signal.SIGHUP)]


class Stopped(BaseException):
    """A signal came while no step was being made. Not an Exception: no library on the way shall take it for one."""


class Remembering:
    """A handler for the moment in which a command is not loaded yet; `ending_at_once` asks it for `name`."""

    name: str | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name

    def install(self) -> None:
        for number in heard_signals():
            signal.signal(number, self)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """A signal raises Stopped, once for what comes within a moment. In another thread than the main one nothing
    changes, as Python takes no handlers there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = float("-inf")

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if time.monotonic() - asked >= SAME_REQUEST_S:
            asked = time.monotonic()
            raise Stopped(signal.Signals(number).name)

    former: dict[signal.Signals, Any] = {number: signal.signal(number, stop) for number in heard_signals()}
    try:
        early = former[signal.SIGTERM]
        if isinstance(early, Remembering) and early.name is not None:
            raise Stopped(early.name)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run of ours, by its record or by what a run left before there were records."""
    return record_of(folder) is not None or _is_older_run(folder)


def record_of(folder: Path) -> dict[str, Any] | None:
    """None where there is none, or a file of that name is somebody else's."""
    try:
        found = files.read_json(folder / RECORD)
    except DataError:
        return None
    return found if isinstance(found, dict) and found.get("kind") == _KIND else None


def _is_older_run(folder: Path) -> bool:
    """environment.json names the version of seqtok beside the settings that were resolved."""
    try:
        about = files.read_json(folder / ENVIRONMENT)
        settings = yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8"))
    except (DataError, OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    versions = about.get("versions") if isinstance(about, dict) else None
    return isinstance(versions, dict) and "seqtok" in versions and isinstance(settings, dict)


def write_record(folder: Path, overwrite: bool, stopped: Any = None) -> None:
    """Say that this command, with `overwrite` or without, works on the run; `stopped`: see `take_stop`."""
    about = {"kind": _KIND, "format": 1, "command": sys.argv[1:], "overwrite": overwrite, "stopped": stopped}
    files.write_json(folder / RECORD, about)


def note_stop(folder: Path, name: str, step: int | None, images: int | None) -> None:
    """Write preempted.json. `step` None: the signal `name` came before the first step."""
    files.write_json(folder / PREEMPTED, {"step": step, "images": images, "signal": name})


def stopped_early(folder: Path, name: str) -> Preempted:
    """What to raise when the signal `name` came before the first step; preempted.json says it to a scheduler, but in
    no folder that is somebody else's or cannot be written."""
    with contextlib.suppress(SeqtokError, OSError):
        if not folder.is_dir() or is_run(folder) or {path.name for path in folder.iterdir()} <= {"run.lock", PREEMPTED}:
            note_stop(folder, name, None, None)
    return Preempted(
        f"{folder}: stopped by {name} before the first step, nothing is lost; start the same command again to continue"
    )


def take_stop(folder: Path) -> None:
    """Take preempted.json away, whatever comes next: a scheduler that finds it starts the command again, for ever if
    that fails. A run that has a record keeps the stop there until it is finished."""
    path = folder / PREEMPTED
    with files.storage_errors(folder):  # a name that is too long
        if not path.is_file():
            return
    record = record_of(folder)
    try:
        note = files.read_json(path)
    except DataError:
        note = None
    if record is not None and isinstance(note, dict) and note.get("step") is not None:
        files.write_json(folder / RECORD, {**record, "stopped": note})
    with files.storage_errors(path), contextlib.suppress(FileNotFoundError):  # every process of a run takes it
        os.unlink(path)


def forget_stop(folder: Path) -> None:
    """The run is finished."""
    record = record_of(folder)
    if record is not None and record.get("stopped") is not None:
        files.write_json(folder / RECORD, {**record, "stopped": None})


def own_stop(folder: Path) -> dict[str, Any] | None:
    """The stop of the run in `folder`, if it was this very command, with `overwrite`, that was stopped."""
    record = record_of(folder)
    if record is None or not record.get("overwrite") or record.get("command") != sys.argv[1:]:
        return None
    stopped = record.get("stopped")
    return stopped if isinstance(stopped, dict) else None
