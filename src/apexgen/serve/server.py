"""The endpoint in a process of its own, until SIGTERM or SIGINT asks it to finish what it has."""

import math
import signal
from collections.abc import Callable, Sequence

import numpy as np
import uvicorn
from rich.console import Console

from apexgen.drawer import Model
from apexgen.listen import is_loopback, listen, written
from apexgen.progress import working
from apexgen.serve.api import Api, Item, Kind, Offer
from apexgen.serve.here import OnlyHere


def make_offer(model: Model, teacher_steps: int, guidance: float, batch: int, queue: int, timeout: float) -> Offer:
    """What an opened model offers: its student, where it has one, in one step, and its teacher in guided steps.

    batch and queue are numbers of pictures, timeout is in seconds, as of Offer.
    """
    student = {"student": 1} if model.distilled is not None else {}

    def draw(kind: Kind, items: Sequence[Item]) -> np.ndarray:
        name, steps = kind
        drawer = model.student(steps) if name == "student" else model.teacher(steps, guidance)
        return drawer.draw([prompt for prompt, _ in items], [seed for _, seed in items])

    return Offer(student | {"teacher": teacher_steps}, str(model.backbone.sides), draw, batch, queue, timeout)


def warm_up(offer: Offer) -> None:
    """Draw once, unseen: what the first drawing sets up, nobody waits for."""
    first = next(iter(offer.steps))
    offer.draw((first, offer.steps[first]), [("", 0)])


def serve(offer: Offer, host: str, port: int, console: Console, tell: Callable[[str], None]) -> None:
    """Answer requests until asked to stop; then refuse new ones, and answer what has come.

    `tell` gets the address once it listens; the console, what else there is to say.

    Raises OSError where it can not listen.
    """
    listening = listen(host, port, "write --port 0")
    with working("drawing once, unseen"):
        warm_up(offer)
    api, address = Api(offer), f"{written(host)}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        OnlyHere(api.app) if is_loopback(address) else api.app,
        log_level="warning",
        timeout_graceful_shutdown=math.ceil(offer.timeout) + 1,
        server_header=False,
    )
    # uvicorn raises the signal anew when it is through, for whoever handled it before.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    tell(f"http://{address}/v1/images/generations")
    try:
        uvicorn.Server(config).run([listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    console.print("stopped; all that was asked for is answered")
