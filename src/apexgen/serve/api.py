"""The endpoint: what comes in over HTTP, what goes to the batcher, what goes back."""

import asyncio
import base64
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from apexgen.png import to_png
from apexgen.serve.ask import LONGEST_BODY, Ask, Refusal, read_ask
from apexgen.serve.batcher import Batcher, Closed, Full
from apexgen.serve.metrics import Metrics

Kind = tuple[str, int]  # a model's name and its steps: what may share a batch
Item = tuple[str, int]  # a prompt and its seed


@dataclass(frozen=True)
class Offer:
    """What there is to ask for, and how much of it at once."""

    steps: Mapping[str, int]  # of each model, unless a request says; the first model is the usual one
    size: str  # such as "64x64", the one there is
    draw: Callable[[Kind, Sequence[Item]], Sequence[np.ndarray]]  # raises ValueError for a prompt it can't draw
    batch: int  # pictures drawn at once, at most
    queue: int  # pictures that may wait
    timeout: float  # seconds from a request to its answer, at most


class Api:
    """The endpoint of an offer; `app` is what a server runs."""

    def __init__(self, offer: Offer) -> None:
        self.offer, self.metrics, self.began = offer, Metrics(), int(time.time())
        self.batcher = Batcher(self.metrics.counting(offer.draw), offer.batch, offer.queue)
        self.metrics.watch_waiting(lambda: self.batcher.waiting)
        # No docs pages: they fetch their scripts from elsewhere.
        self.app = FastAPI(title="apexgen", docs_url=None, redoc_url=None, lifespan=self._lifespan)
        self.app.post("/v1/images/generations")(self.generations)
        shown: dict[str, Callable[..., Any]] = {
            "/v1/models": self.models,
            "/v1/models/{name}": self.model,
            "/health": self.health,
            "/metrics": self.show_metrics,
        }
        for path, answer in shown.items():
            self.app.get(path)(answer)
            self.app.head(path, include_in_schema=False)(answer)
        self.app.add_exception_handler(HTTPException, _no_such_thing)
        self.app.add_exception_handler(Exception, _broken)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        async with self.batcher:
            yield

    async def generations(self, request: Request) -> Response:
        """Draw pictures of a prompt; what is refused or late is told in OpenAI's shape, as Refusal has it."""
        began, status = time.perf_counter(), 500
        try:
            answer = await self._answer(request)
            status = answer.status_code
            return answer
        finally:
            self.metrics.requests.labels(status).inc()
            self.metrics.request_seconds.observe(time.perf_counter() - began)

    async def _answer(self, request: Request) -> Response:
        body, within = None, f"within {self.offer.timeout:g} s"
        try:
            async with asyncio.timeout(self.offer.timeout):
                body = await _body(request)
                return JSONResponse(await self._generate(read_ask(body)))
        except Refusal as refusal:
            return refusal.answer()
        except TimeoutError:
            if body is None:
                return Refusal(408, f"the body has not come {within}; send it again", "timeout").answer()
            return Refusal(504, f"not drawn {within}; try again later", "timeout").answer()
        except ClientDisconnect:  # while its body came; nobody reads this, but it is counted
            return Response(status_code=499)

    async def _generate(self, ask: Ask) -> dict[str, Any]:
        name, steps = self._kind(ask)
        first = random.randrange(2**31) if ask.seed is None else ask.seed
        seeds, prompt = range(first, first + ask.n), ask.prompt.strip()
        try:
            pictures = await self.batcher.ask((name, steps), [(prompt, seed) for seed in seeds])
        except Full as full:
            after = {"Retry-After": str(math.ceil(full.seconds))}
            raise Refusal(429, str(full), "rate_limit_exceeded", headers=after) from None
        except Closed:
            raise Refusal(503, "the server is stopping", "stopping") from None
        except ValueError as error:
            raise Refusal(400, str(error).splitlines()[0], "invalid_value", "prompt") from None
        said = [{"prompt": prompt, "seed": seed, "steps": steps, "model": name} for seed in seeds]
        files = await asyncio.to_thread(lambda: [to_png(*pair) for pair in zip(pictures, said, strict=True)])
        data = [
            {"b64_json": base64.b64encode(file).decode(), "seed": seed} for file, seed in zip(files, seeds, strict=True)
        ]
        return {"created": int(time.time()), "data": data}

    def _kind(self, ask: Ask) -> Kind:
        """The model and steps asked for; Refusal where there is no such model or size."""
        name = self._known(ask.model or next(iter(self.offer.steps)))
        if ask.size not in ("auto", self.offer.size):
            message = f"size = {ask.size[:60]!r}: this model draws {self.offer.size}; write that, or auto"
            raise Refusal(400, message, "invalid_value", "size")
        if ask.n > self.offer.queue:
            raise Refusal(400, f"n = {ask.n}: at most {self.offer.queue} pictures may wait", "invalid_value", "n")
        return name, ask.steps or self.offer.steps[name]

    async def models(self) -> dict[str, Any]:
        """The models there are."""
        return {"object": "list", "data": [self._told(name) for name in self.offer.steps]}

    async def model(self, name: str) -> Response:
        """One of them; a Refusal, answered as 404, where there is no such one."""
        try:
            return JSONResponse(self._told(self._known(name)))
        except Refusal as refusal:
            return refusal.answer()

    def _known(self, name: str) -> str:
        """The name of a model; Refusal where there is no such one."""
        if name not in self.offer.steps:
            message = f"no model {name[:60]!r}; there is {' and '.join(self.offer.steps)}"
            raise Refusal(404, message, "model_not_found", "model")
        return name

    def _told(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.began, "owned_by": "apexgen"}

    async def health(self) -> dict[str, Any]:
        """Whether the server takes requests."""
        return {"status": "ok", "waiting": self.batcher.waiting}

    async def show_metrics(self) -> Response:
        """What was counted, for Prometheus."""
        return Response(self.metrics.page(), media_type="text/plain; version=0.0.4")


async def _body(request: Request) -> bytes:
    """A request's body; Refusal 413 as soon as it is longer than allowed."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise Refusal(413, f"the body is longer than {LONGEST_BODY} bytes", "body_too_large")
    return body


async def _no_such_thing(request: Request, error: Exception) -> Response:
    """404 and 405 in the shape of the other errors."""
    message = f"there is no {request.method} {request.url.path[:100]} here"
    status = getattr(error, "status_code", 404)
    if status != 405:
        return Refusal(status, message, "not_found").answer()
    here = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
    allowed = ", ".join(sorted({method for route in here for method in route.methods}))
    return Refusal(405, f"{message}; write {allowed}", "method_not_allowed", headers={"Allow": allowed}).answer()


async def _broken(request: Request, error: Exception) -> Response:
    """Our own mistakes; the server's log has the rest."""
    return Refusal(500, "the server made a mistake; its log says which", "server_error").answer()
