"""The line before the models: one thread uses them, requests wait their turn, and who leaves is not drawn for.

So an answer does not depend on who else is asking, and a page that was closed costs no more work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from seqtok_core.foundation.errors import SeqtokError

T = TypeVar("T")
_END = object()


class BusyError(SeqtokError):
    """Too many requests are waiting."""


class _Left(Exception):
    """Nobody listens any more."""


class ModelLine:
    def __init__(self, places: int = 64) -> None:
        """`places`: requests that may wait; more are refused with BusyError."""
        self._thread, self._free = ThreadPoolExecutor(1, "models"), places

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, when its turn has come."""
        with self._place():
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def stream(self, work: Callable[[Callable[[Any], None]], None]) -> AsyncIterator[Any]:
        """What `work` says to the callback that it is given, as it says it. Where the listener has gone, work ends at
        its next word, or is not begun."""
        loop, said, gone = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def say(word: Any) -> None:
            if gone.is_set():
                raise _Left
            loop.call_soon_threadsafe(said.put_nowait, word)

        def whole() -> Exception | None:
            error: Exception | None = None
            try:
                work(say)
            except _Left:
                return None
            except Exception as raised:
                error = raised
            if not gone.is_set():
                loop.call_soon_threadsafe(said.put_nowait, _END)
            return error

        with self._place():
            done = loop.run_in_executor(self._thread, whole)
            try:
                while (word := await said.get()) is not _END:
                    yield word
                error = await done
                if error is not None:
                    raise error
            finally:
                gone.set()
                done.cancel()

    @contextmanager
    def _place(self) -> Any:
        if not self._free:
            raise BusyError("too many requests are waiting for the models; try again in a moment")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
