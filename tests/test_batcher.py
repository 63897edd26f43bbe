"""The batcher alone, around a worker that counts: what is asked together is done together, and nothing is lost."""

import asyncio
import threading

import pytest

from apexgen.serve.batcher import Batcher, Closed, Full


class Worker:
    """Doubles numbers, one call at a time, and may be held; -1 is refused."""

    def __init__(self):
        self.calls, self.free, self.busy = [], threading.Event(), threading.Lock()
        self.free.set()

    def __call__(self, kind, items):
        assert self.busy.acquire(blocking=False), "two calls at once"
        try:
            self.calls.append((kind, list(items)))
            self.free.wait(10)
            if -1 in items:
                raise ValueError("-1 is refused")
            if -2 in items:
                raise RuntimeError("broken")
            return [2 * item for item in items]
        finally:
            self.busy.release()


@pytest.fixture
def worker():
    return Worker()


def run(worker, body, limit=4, room=100, linger=0.003):
    async def main():
        async with Batcher(worker, limit, room, linger) as batcher:
            return await asyncio.wait_for(body(batcher), 20)

    return asyncio.run(main())


async def held(worker, batcher, *more):
    """A call that is under way, and what came while it was: (kind, items) each."""
    worker.free.clear()
    first = asyncio.create_task(batcher.ask("first", [0]))
    while not worker.calls:
        await asyncio.sleep(0.001)
    tasks = [asyncio.create_task(batcher.ask(kind, items)) for kind, items in more]
    await asyncio.sleep(0)
    return first, tasks


def test_what_came_while_the_worker_was_busy_is_done_in_one_call_of_at_most_the_limit(worker):
    async def body(batcher):
        _, tasks = await held(worker, batcher, *[("k", [number]) for number in range(6)])
        worker.free.set()
        return await asyncio.gather(*tasks)

    assert run(worker, body) == [[0], [2], [4], [6], [8], [10]]
    assert worker.calls == [("first", [0]), ("k", [0, 1, 2, 3]), ("k", [4, 5])]


def test_those_who_come_within_the_linger_of_an_idle_worker_share_a_call(worker):
    async def body(batcher):
        return await asyncio.gather(batcher.ask("k", [1]), batcher.ask("k", [2, 3]))

    assert run(worker, body) == [[2], [4, 6]]
    assert worker.calls == [("k", [1, 2, 3])]


def test_kinds_are_never_mixed_and_the_oldest_is_next(worker):
    async def body(batcher):
        _, tasks = await held(worker, batcher, ("a", [1]), ("b", [2]), ("a", [3]), ("b", [4]))
        worker.free.set()
        return await asyncio.gather(*tasks)

    assert run(worker, body) == [[2], [4], [6], [8]]
    assert worker.calls[1:] == [("a", [1, 3]), ("b", [2, 4])]


def test_a_request_longer_than_the_limit_is_done_in_several_calls(worker):
    assert run(worker, lambda batcher: batcher.ask("k", list(range(10)))) == [2 * n for n in range(10)]
    assert [len(items) for _, items in worker.calls] == [4, 4, 2]


def test_a_full_queue_refuses_at_once_all_or_nothing_and_says_when(worker):
    async def body(batcher):
        first, tasks = await held(worker, batcher, ("k", [1, 2]))
        with pytest.raises(Full) as refusal:
            await batcher.ask("k", [3, 4])
        assert refusal.value.seconds > 0 and batcher.waiting == 2
        last = asyncio.create_task(batcher.ask("k", [5]))  # there is room for one
        worker.free.set()
        return await asyncio.gather(first, *tasks, last)

    assert run(worker, body, room=3) == [[0], [2, 4], [10]]


def test_one_that_is_refused_does_not_spoil_its_batch(worker):
    async def body(batcher):
        _, tasks = await held(worker, batcher, ("k", [1]), ("k", [-1]), ("k", [3]))
        worker.free.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    good, bad, other = run(worker, body)
    assert good == [2] and other == [6]
    assert isinstance(bad, ValueError) and str(bad) == "-1 is refused"


def test_a_worker_that_breaks_tells_all_of_its_batch_and_goes_on(worker):
    async def body(batcher):
        _, tasks = await held(worker, batcher, ("k", [1]), ("k", [-2]))
        worker.free.set()
        broken = await asyncio.gather(*tasks, return_exceptions=True)
        return broken, await batcher.ask("k", [7])

    broken, after = run(worker, body)
    assert [str(error) for error in broken] == ["broken", "broken"] and after == [14]


def test_who_gives_up_frees_the_room_and_is_not_worked_for(worker):
    async def body(batcher):
        first, _ = await held(worker, batcher)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await batcher.ask("k", [1, 2])
        assert batcher.waiting == 0
        worker.free.set()
        return await asyncio.gather(first, batcher.ask("k", [3]))

    assert run(worker, body, room=2) == [[0], [6]]
    assert worker.calls == [("first", [0]), ("k", [3])]


def test_leaving_does_what_waits_and_takes_nothing_more(worker):
    async def main():
        async with Batcher(worker, 4, 100) as batcher:
            first, tasks = await held(worker, batcher, ("k", [1]), ("k", [2]))
            asyncio.get_running_loop().call_later(0.05, worker.free.set)
        with pytest.raises(Closed):
            await batcher.ask("k", [3])
        return await asyncio.gather(first, *tasks)

    assert asyncio.run(main()) == [[0], [2], [4]]


def test_nothing_is_lost_among_a_thousand(worker):
    async def body(batcher):
        return await asyncio.gather(*(batcher.ask(number % 3, [number]) for number in range(1000)))

    assert run(worker, body, limit=16, room=1000) == [[2 * number] for number in range(1000)]
    assert sorted(item for _, items in worker.calls for item in items) == list(range(1000))
    assert all(len(items) <= 16 for _, items in worker.calls) and len(worker.calls) < 200
