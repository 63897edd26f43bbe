"""A judge behind any OpenAI-compatible server: chat completions with the picture as a data URL, temperature 0.

The key is read from the environment, APEXGEN_JUDGE_KEY, sent to that server alone, and taken out of what it says.
https://platform.openai.com/docs/api-reference/chat/create
"""

import base64
import io
import json
import math
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from apexgen.evaluate.judge import THINKING, TOKENS, NoAnswer, NoProbabilities, without_thoughts
from apexgen.evaluate.sockets import Sockets

KEY = "APEXGEN_JUDGE_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LONGEST_WAIT = 60.0  # seconds between two tries
ROUNDING = 1e-3  # by which a sum of probabilities may exceed 1
THOUGHT = "<think>"
HINT = "add --no-thinking, or take a judge that does not think"
MOST = 2**24  # bytes of a response
ALTERNATIVES = 20  # tokens whose probability is asked for, the most the API has


@dataclass(frozen=True)
class Endpoint:
    """A model of a server; `url` ends where /chat/completions begins, such as http://127.0.0.1:8000/v1.

    Raises ValueError, one line, for a url that is no server's or holds a secret, no name, or no workers.
    """

    url: str
    name: str
    workers: int = 8
    thinking: bool = True  # False: told to the chat template, for servers that know chat_template_kwargs
    timeout: float = 120.0  # seconds, of a wait and of what then comes
    requests: int = 4  # for one answer, where the server fails
    pause: float = 1.0  # seconds before the second request; doubled each time
    tries: int = 3
    key: str = field(default_factory=lambda: os.environ.get(KEY, ""), repr=False)
    _sockets: Sockets = field(default_factory=Sockets, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--judge {self.url!r} is no server's address; write --judge http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError(f"--judge must hold no name, key or query; put the key into the environment: {KEY}")
        if not self.name:
            raise ValueError("--judge-model is missing: name the server's model")
        if self.workers < 1:
            raise ValueError(f"--workers {self.workers}: at least 1; write --workers 1")

    def settings(self) -> dict[str, Any]:
        """What its answers depend on, as far as one can know; not the address, which may change."""
        return {"backend": "openai-compatible", "temperature": 0, "thinking": self.thinking, "tokens": self.tokens}

    @property
    def tokens(self) -> int:
        """The most of an answer."""
        return THINKING if self.thinking else TOKENS

    def ask(self, picture: Image.Image, question: str, system: str, text_first: bool = False) -> str:
        """The answer's text.

        NoAnswer for a refusal, an empty answer, or a server that fails after all; ValueError where it knows neither
        key nor model, or httpx is missing.
        """
        content = _content(picture, question)
        if text_first:
            content.reverse()
        choice = self._complete(content, system, {"max_tokens": self.tokens})
        message = choice.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        said = without_thoughts(content) if isinstance(content, str) else ""
        cut_off = self.thinking and not said and choice.get("finish_reason") == "length"
        if cut_off or said.lstrip().startswith(THOUGHT):
            raise NoAnswer(f"a thought without an answer, in {self.tokens} tokens; {HINT}")
        if not isinstance(content, str):
            raise NoAnswer("an answer without text")
        return self._without_key(said)

    def chance(self, picture: Image.Image, question: str, answers: tuple[str, ...]) -> float:
        """The summed probability, in [0, 1], of the answers among the 20 likeliest first tokens.

        NoAnswer and ValueError as of `ask`, NoAnswer also where a thought comes first, and NoProbabilities where the
        server tells none.
        """
        asked = {"max_tokens": 1, "logprobs": True, "top_logprobs": ALTERNATIVES}
        choice = self._complete(_content(picture, question), "", asked)
        try:
            first = choice["logprobs"]["content"][0]
            likeliest = first["top_logprobs"]
            found = {entry["token"]: math.exp(entry["logprob"]) for entry in likeliest}
        except (KeyError, IndexError, TypeError):
            raise NoProbabilities(
                f"{self.name} at {urlsplit(self.url).hostname} tells no probabilities (logprobs), which this benchmark "
                "is made of; take a server that does, such as vLLM, or --judge FOLDER"
            ) from None
        except OverflowError:
            raise NoAnswer("probabilities that are none") from None
        if first.get("token") == THOUGHT:
            raise NoAnswer(f"it begins with a thought, not with its answer; {HINT}")
        total = sum(found.get(answer, 0.0) for answer in set(answers))
        if not total <= 1 + ROUNDING:  # nor nan
            raise NoAnswer("probabilities that are none")
        return min(total, 1.0)

    def close(self) -> None:
        """End the connections: a question under way fails at once, and none is put again."""
        self._sockets.shut_down()

    @cached_property
    def _client(self) -> Any:
        httpx = _httpx()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        direct = urlsplit(self.url).hostname in LOOPBACK  # no proxy between this machine and itself
        limits = httpx.Limits(max_connections=self.workers)
        return httpx.Client(headers=headers, timeout=self.timeout, limits=limits, trust_env=not direct)

    def _complete(self, content: list[dict[str, Any]], system: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The first choice of a completion, no refusal; requests are repeated where that may help."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        body = {"model": self.name, "messages": messages, "temperature": 0} | asked
        if not self.thinking:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        why = ""
        for attempt in range(self.requests):
            choice, why, wait = self._request(body)
            if choice is not None:
                if _is_refusal(choice):
                    raise NoAnswer("refused by the server")
                return choice
            if wait is None or attempt + 1 == self.requests:
                break
            if self._sockets.shut.wait(min(max(wait, self.pause * 2**attempt), LONGEST_WAIT)):
                break
        raise NoAnswer(why)

    def _request(self, body: dict[str, Any]) -> tuple[dict[str, Any] | None, str, float | None]:
        """A choice; or why there is none, and the seconds the server wants to be left alone, None for good."""
        httpx = _httpx()
        where, traced = f"{self.url.rstrip('/')}/chat/completions", {"trace": self._sockets.note}
        try:
            with self._client.stream("POST", where, json=body, extensions=traced) as response:
                content = self._read(response)
        except (httpx.HTTPError, TimeoutError) as error:
            return None, f"no answer from {urlsplit(self.url).hostname} ({type(error).__name__})", 0.0
        if response.status_code == 200:
            return _first_choice(content), "an answer that is no chat completion", 0.0
        why = self._without_key(f"status {response.status_code}: {in_a_line(content)[:200]}")
        if response.status_code in (401, 403, 404):
            raise ValueError(f"{self.name}: {why}; check --judge, --judge-model and {KEY}")
        if response.status_code == 400 and not self.thinking:
            why += "; a server that takes no chat_template_kwargs wants --thinking"
        again = response.status_code in (408, 409, 425, 429) or response.status_code >= 500
        return None, why, seconds_to_wait(response.headers.get("Retry-After", "")) if again else None

    def _read(self, response: Any) -> bytes:
        """A response's content, as far as MOST bytes; TimeoutError where it drips in for longer than an answer may."""
        content, began = bytearray(), time.monotonic()
        for part in response.iter_bytes():
            content += part
            if time.monotonic() - began > self.timeout:
                raise TimeoutError
            if len(content) > MOST:
                break
        return bytes(content)

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise ValueError('httpx is missing: pip install "apexgen[evaluate]"') from None
    return httpx


def data_url(picture: Image.Image) -> str:
    """The picture as PNG in a data URL."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _content(picture: Image.Image, question: str) -> list[dict[str, Any]]:
    """A message's parts, the picture first, as models are trained."""
    return [{"type": "image_url", "image_url": {"url": data_url(picture)}}, {"type": "text", "text": question}]


def in_a_line(content: bytes) -> str:
    """What a server said as one line of text, without what a terminal would obey."""
    line = " ".join(content.decode(errors="replace").split())
    return "".join(letter for letter in line if letter.isprintable())


def seconds_to_wait(header: str) -> float:
    """Retry-After: seconds, or a date; 0 where it says nothing."""
    try:
        return max(0.0, float(header)) if math.isfinite(float(header)) else 0.0
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, OverflowError):  # the latter for a year or a zone of many digits
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _is_refusal(choice: dict[str, Any]) -> bool:
    message = choice.get("message")
    return choice.get("finish_reason") == "content_filter" or bool(isinstance(message, dict) and message.get("refusal"))


def _first_choice(content: bytes) -> dict[str, Any] | None:
    try:
        choice = json.loads(content)["choices"][0]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):  # the last where it is nested too deep
        return None
    return choice if isinstance(choice, dict) else None
