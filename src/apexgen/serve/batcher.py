"""What is asked for at about the same time, done in one call: dynamic batching behind a bounded queue.

Items wait in order of arrival. Whenever the worker is free, the oldest and up to limit - 1 others of its kind are done
together; where nothing waited, a few milliseconds are given to those who come just after.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Full(Exception):
    """There is no room to wait; `seconds` from now there should be."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the queue is full; try again in {seconds:.1f} s")
        self.seconds = seconds


class Closed(Exception):
    """Nothing more is taken on."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Kind, Item, Result]):
    kind: Kind
    item: Item
    answer: asyncio.Future[Result]


class Batcher(Generic[Kind, Item, Result]):
    """Does items by `work(kind, items) -> results`, one call at a time on a thread of its own.

    limit: items a call, at most. room: items that may wait. linger: seconds given to others after an idle time.
    Where a call raises ValueError the items are done one by one, so that what is wrong with one is told to it alone.
    Lives in one event loop: `async with Batcher(...) as batcher`; leaving does what still waits.
    """

    def __init__(
        self,
        work: Callable[[Kind, Sequence[Item]], Sequence[Result]],
        limit: int,
        room: int,
        linger: float = 0.003,
    ) -> None:
        assert limit >= 1 and room >= 1, f"limit {limit}, room {room}"
        self._work, self._limit, self._room, self._linger = work, limit, room, linger
        self._waiting: deque[_Waiting[Kind, Item, Result]] = deque()
        self._arrived, self._closing = asyncio.Event(), False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher")
        self._seconds_an_item = 0.0  # of the last call

    @property
    def waiting(self) -> int:
        """Items that no call has taken up yet."""
        return len(self._waiting)

    async def __aenter__(self) -> "Batcher[Kind, Item, Result]":
        self._loop = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._closing = True
        self._arrived.set()
        await self._loop
        self._thread.shutdown()

    async def ask(self, kind: Kind, items: Sequence[Item]) -> list[Result]:
        """The results of items, all or none; whoever gives up (is cancelled) takes what still waits out of the queue.

        Raises Full, Closed, or what `work` raised.
        """
        if self._closing:
            raise Closed
        if self.waiting + len(items) > self._room:
            raise Full(max(0.1, self._seconds_an_item * self.waiting))
        loop = asyncio.get_running_loop()
        mine = [_Waiting[Kind, Item, Result](kind, item, loop.create_future()) for item in items]
        self._waiting.extend(mine)
        self._arrived.set()
        try:
            return await asyncio.gather(*(one.answer for one in mine))
        finally:
            for one in mine:
                one.answer.cancel()  # nothing where it is answered
            self._waiting = deque(one for one in self._waiting if not one.answer.done())

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                await asyncio.sleep(self._linger)
            if batch := self._next():
                await self._do(batch)

    def _next(self) -> list[_Waiting[Kind, Item, Result]]:
        """The oldest that wait, of one kind, up to the limit; no longer in the queue."""
        kind = self._waiting[0].kind if self._waiting else None
        batch = [one for one in self._waiting if one.kind == kind][: self._limit]
        taken = set(batch)
        self._waiting = deque(one for one in self._waiting if one not in taken)
        return batch

    async def _do(self, batch: list[_Waiting[Kind, Item, Result]]) -> None:
        began, loop = time.monotonic(), asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._work, batch[0].kind, [one.item for one in batch])
        except Exception as error:
            if isinstance(error, ValueError) and len(batch) > 1:
                for one in batch:
                    await self._do([one])
            else:
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)
            return
        self._seconds_an_item = (time.monotonic() - began) / len(batch)
        for one, result in zip(batch, results, strict=True):
            if not one.answer.done():
                one.answer.set_result(result)
