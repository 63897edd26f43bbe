"""A real OpenAI-compatible server on loopback, whose model is a function of picture and question; and its moods."""

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from apexgen.evaluate.endpoint import Endpoint
from apexgen.evaluate.judge import YES_NO, Inquiry, View
from loopback import Quiet, listening

COLORS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


@dataclass
class Stub:
    """What the server does: `says` answers (picture, question), `chances` tells its tokens' probabilities."""

    says: Callable[[Image.Image, str], object]
    chances: Callable[[Image.Image, str], dict[str, float]] | None = None
    troubles: list[tuple] = field(default_factory=list)  # (status, body, headers) or seconds to hang, before it answers
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    delay: float = 0.0
    drip: int = 0  # bytes of an answer that are sent at once, twenty times a second; 0: all
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, body: dict) -> tuple[int, bytes, dict]:
        parts = body["messages"][-1]["content"]
        url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
        question = next(part["text"] for part in parts if part["type"] == "text")
        picture = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        said = self.says(picture, question)
        choice = said if isinstance(said, dict) else {"message": {"content": said}, "finish_reason": "stop"}
        if body.get("logprobs") and self.chances is not None and "logprobs" not in choice:
            tokens = [{"token": t, "logprob": float(np.log(p))} for t, p in self.chances(picture, question).items()]
            choice = choice | {"logprobs": {"content": [{"token": said, "top_logprobs": tokens}]}}
        return 200, json.dumps({"choices": [choice]}).encode(), {}


@contextmanager
def serving(stub: Stub):
    """The address of the stub's server."""

    class Handler(Quiet):
        protocol_version, wbufsize = "HTTP/1.1", 0 if stub.drip else -1  # one packet an answer

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with stub.lock:
                stub.requests.append(body | {"path": self.path})
                stub.headers.append(dict(self.headers))
                trouble = stub.troubles.pop(0) if stub.troubles else None
                stub.at_once += 1
                stub.most_at_once = max(stub.most_at_once, stub.at_once)
            time.sleep(stub.delay)
            if isinstance(trouble, float):
                time.sleep(trouble)
                trouble = None
            status, content, headers = trouble or stub.reply(body)
            with stub.lock:
                stub.at_once -= 1
            try:
                self.send_response(status)
                for name, value in {"Content-Length": len(content), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                for start in range(0, len(content), stub.drip or len(content) or 1):
                    self.wfile.write(content[start : start + (stub.drip or len(content))])
                    time.sleep(0.05 if stub.drip else 0)
            except OSError:
                pass  # the client has gone

    with listening(Handler) as address:
        yield f"{address}/v1"


def color_of(picture: Image.Image) -> str:
    """The color that a picture is nearest to, on the whole."""
    mean = np.asarray(picture.convert("RGB"), dtype=float).mean((0, 1))
    return min(COLORS, key=lambda name: float(np.abs(mean - COLORS[name]).sum()))


def asked_color(question: str) -> str:
    """The color that a question is about: the last that it names."""
    return re.findall("red|green|blue", question)[-1]


def fill_in(question: str, good: bool) -> str:
    """The answer in the form that a guarded question asks for: the best choices or the worst."""
    lines = question.split("belongs to the answer:\n")[1].splitlines()
    chosen = []
    for line in lines:
        if ":" in line:
            label, choices = line.split(": ")
            chosen.append(f"{label}: {choices.split(' or ')[-1 if good else 0]}")
        else:
            chosen.append(line.split(" or ")[0 if good else 1])
    return "\n".join(chosen)


def oracle(picture: Image.Image, question: str) -> str:
    """The truth."""
    return fill_in(question, color_of(picture) == asked_color(question))


def liar(picture: Image.Image, question: str) -> str:
    """The contrary."""
    return fill_in(question, color_of(picture) != asked_color(question))


def write_picture(file, *colors: str, side: int = 16):
    """A picture of one color, or a 2x2 grid of four."""
    image = Image.new("RGB", (side, side) if len(colors) == 1 else (2 * side, 2 * side))
    for place, color in enumerate(colors):
        left, top = side * (place % 2), side * (place // 2)
        image.paste(COLORS[color], (left, top, left + side, top + side))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def endpoint(address, **settings):
    """A judge that waits little."""
    return Endpoint(address, "stub", timeout=5.0, pause=0.01, **settings)


def inquiries(folder, count=6):
    """Three questions about each of some pictures."""
    files = [write_picture(folder / f"{i}.png", list(COLORS)[i % 3], side=8 + i) for i in range(count)]
    return [Inquiry(file.stem, View(file), f"Is it {color}?", YES_NO) for file in files for color in COLORS]
