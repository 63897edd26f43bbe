"""The endpoint around a drawing that waits or breaks: what it refuses, what it gives up, what it counts."""

import asyncio
import json
import threading

import httpx
import numpy as np

from apexgen.serve.api import Api, Offer
from endpoint import PATH, pictures


class Held:
    """A drawing that waits until it is let go, or breaks."""

    def __init__(self):
        self.free, self.calls = threading.Event(), 0

    def __call__(self, kind, items):
        self.calls += 1
        assert self.free.wait(10)
        if kind == ("student", 13):
            raise RuntimeError("broken")
        return [np.full((4, 4, 3), seed / 255) for _, seed in items]


def served(body, draw, timeout=10.0, queue=2):
    """What `body` sees as a client of an endpoint that draws so, one picture at a time."""

    async def main():
        api = Api(Offer({"student": 1}, "4x4", draw, 1, queue, timeout))
        transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
        async with api.batcher, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await body(client, api)

    return asyncio.run(main())


async def once_drawing(client, draw, **ask):
    task = asyncio.create_task(client.post(PATH, json={"prompt": "a", "seed": 1} | ask))
    while not draw.calls:
        await asyncio.sleep(0.001)
    return task


def test_beyond_the_queue_the_answer_is_429_with_a_time_to_come_back():
    draw = Held()

    async def body(client, api):
        first = await once_drawing(client, draw)
        waiting = [asyncio.create_task(client.post(PATH, json={"prompt": "a", "seed": seed})) for seed in (2, 3)]
        await asyncio.sleep(0.05)
        refused = await client.post(PATH, json={"prompt": "a"})
        health = (await client.get("/health")).json()
        draw.free.set()
        return refused, health, await asyncio.gather(first, *waiting)

    refused, health, answered = served(body, draw)
    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1 and health["waiting"] == 2
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert [pictures(answer)[0][0, 0, 0] for answer in answered] == [1, 2, 3]


def test_more_pictures_than_may_ever_wait_are_refused_for_good():
    answer = served(lambda client, api: client.post(PATH, json={"prompt": "a", "n": 3}), Held())
    assert answer.status_code == 400 and "at most 2 pictures may wait" in answer.json()["error"]["message"]


def test_what_takes_too_long_is_given_up_and_what_waited_is_not_drawn():
    draw = Held()

    async def body(client, api):
        first = await once_drawing(client, draw)
        second = asyncio.create_task(client.post(PATH, json={"prompt": "a"}))
        answers = await asyncio.gather(first, second)
        draw.free.set()
        return answers

    answers = served(body, draw, timeout=0.2)
    assert [answer.status_code for answer in answers] == [504, 504] and draw.calls == 1
    assert "not drawn within 0.2 s" in answers[0].json()["error"]["message"]


def test_our_own_mistake_is_told_as_such_and_counted():
    draw = Held()
    draw.free.set()

    async def body(client, api):
        return await client.post(PATH, json={"prompt": "a", "steps": 13}), (await client.get("/metrics")).text

    answer, counted = served(body, draw)
    assert answer.status_code == 500 and json.loads(answer.text)["error"]["type"] == "server_error"
    assert 'apexgen_requests_total{status="500"} 1.0' in counted
