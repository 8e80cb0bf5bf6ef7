"""Being asked to stop: the first signal ends the run after a checkpoint, a later one at once.

A launcher passes on a signal that the whole process group has already received, so what comes within a moment
of the first is the same request. This is for the steps; around them see foundation/run_record.py.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from seqtok_core.foundation.run_record import SAME_REQUEST_S, heard_signals


class StopRequest:
    """A context manager; `name` says who asked (the first signal), or is None. Former handlers return at its end."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._asked = 0.0
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self._former = {number: signal.signal(number, self._on_signal) for number in heard_signals()}
        return self

    def ask(self, name: str) -> None:
        """A request that is no signal."""
        if self.name is None:
            self.name, self._asked = name, time.monotonic()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.ask(signal.Signals(number).name)
        elif time.monotonic() - self._asked >= SAME_REQUEST_S:
            self._restore()
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
