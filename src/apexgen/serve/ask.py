"""What a request may ask for, read from its body, and refusals, in OpenAI's shapes.

https://platform.openai.com/docs/api-reference/images/create; `seed` and `steps` are ours.
"""

from typing import Any, Literal

from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError, model_validator

from apexgen.config import Table, explain

LONGEST_BODY = 64 * 1024  # bytes
MOST_PICTURES = 10  # a request


class Ask(Table):
    """A request for pictures of one prompt."""

    prompt: str = Field(min_length=1, max_length=4000)
    model: str | None = None  # the first of /v1/models unless given
    n: int = Field(1, ge=1, le=MOST_PICTURES)
    size: str = "auto"
    response_format: Literal["b64_json"] = "b64_json"
    seed: int | None = Field(None, ge=0, lt=2**63 - MOST_PICTURES)  # picture i has seed + i; random unless given
    steps: int | None = Field(None, ge=1, le=100)  # the model's own unless given
    # OpenAI's, which clients send without being asked: hints that are not read, and what there is but one of.
    user: str | None = None
    safety_identifier: str | None = None
    moderation: str | None = None
    quality: str | None = None
    style: str | None = None
    background: Literal["auto", "opaque"] = "auto"
    output_format: Literal["png"] = "png"
    output_compression: Literal[100] = 100
    stream: Literal[False] = False
    partial_images: Literal[0] = 0

    @model_validator(mode="before")
    @classmethod
    def _unsaid(cls, body: Any) -> Any:
        """To OpenAI, null is as good as nothing."""
        if not isinstance(body, dict):
            return body
        return {key: value for key, value in body.items() if value is not None or key not in cls.model_fields}


class Refusal(Exception):
    """An answer that is no picture: HTTP status, one line, the parameter it is about, OpenAI's code."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    def answer(self) -> JSONResponse:
        """OpenAI's error object."""
        kind = (
            "rate_limit_error"
            if self.status == 429
            else "server_error"
            if self.status >= 500
            else "invalid_request_error"
        )
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, self.headers)


def read_ask(body: bytes) -> Ask:
    """The request of a JSON body; Refusal 400 that names what is wrong with it."""
    try:
        ask = Ask.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise Refusal(400, f"the body is not JSON: {first['ctx']['error']}", "invalid_json") from None
        if not first["loc"]:
            raise Refusal(400, 'the body is no JSON object; write {"prompt": "a red ring"}', "invalid_json") from None
        param = str(first["loc"][0])
        code = "unknown_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
        raise Refusal(400, _short(explain(error, Ask)), code, param) from None
    if not ask.prompt.strip():
        raise Refusal(400, "the prompt is empty; write at least a word", "invalid_value", "prompt")
    return ask


def _short(line: str) -> str:
    return line if len(line) <= 300 else f"{line[:140]} ... {line[-140:]}"
