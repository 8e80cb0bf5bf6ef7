"""The line before the models: in turn, one at a time, and nothing is done for who has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from seqtok.explorer.line import BusyError, ModelLine

Say = Callable[[Any], None]


def test_one_at_a_time_in_the_order_of_asking():
    async def main() -> None:
        line, inside, done = ModelLine(), threading.Lock(), []

        def work(number: int) -> int:
            assert inside.acquire(blocking=False), "two at once"
            done.append(number)
            inside.release()
            return number

        assert await asyncio.gather(*(line.run(lambda n=n: work(n)) for n in range(20))) == list(range(20))
        assert done == list(range(20))

    asyncio.run(main())


def test_a_stream_is_what_was_said_and_then_its_error():
    async def main() -> None:
        line, heard = ModelLine(), []

        def work(say: Say) -> None:
            say("one")
            say("two")
            raise ValueError("three")

        async def listen() -> None:
            async for word in line.stream(work):
                heard.append(word)

        with pytest.raises(ValueError, match="three"):
            await listen()
        assert heard == ["one", "two"]
        assert await line.run(lambda: "goes on") == "goes on"

    asyncio.run(main())


def test_work_ends_when_nobody_listens():
    async def main() -> None:
        line, go_on, said, ended = ModelLine(), threading.Event(), [], threading.Event()

        def work(say: Say) -> None:
            try:
                for number in range(100):
                    said.append(number)
                    say(number)
                    go_on.wait(10)
            finally:
                ended.set()

        stream = line.stream(work)
        assert await anext(stream) == 0
        await stream.aclose()
        go_on.set()
        assert await asyncio.to_thread(ended.wait, 10)
        assert len(said) <= 2
        assert await line.run(lambda: "free") == "free"

    asyncio.run(main())


def test_work_is_not_begun_for_who_left_while_waiting():
    async def main() -> None:
        line, gate, begun = ModelLine(), threading.Event(), []
        first = asyncio.create_task(line.run(lambda: gate.wait(10)))
        await asyncio.sleep(0)

        async def listen() -> None:
            async for _ in line.stream(lambda say: begun.append(1)):
                pass

        waiting = asyncio.create_task(listen())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        gate.set()
        await first
        await line.run(lambda: None)
        assert begun == []

    asyncio.run(main())


def test_a_full_line_says_so_and_has_room_again():
    async def main() -> None:
        line, gate = ModelLine(places=2), threading.Event()
        waiting = [asyncio.create_task(line.run(lambda: gate.wait(10))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="try again"):
            await line.run(lambda: None)
        gate.set()
        await asyncio.gather(*waiting)
        assert await line.run(lambda: 1) == 1

    asyncio.run(main())
