"""A table of settings: frozen, nothing unknown in it, and mistakes told in one line."""

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def read_table(file: Path) -> dict[str, Any]:
    """The tables of a TOML file; ValueError, one line, where it is missing or broken."""
    if not file.is_file():
        raise ValueError(f"{file}: no such run file")
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid TOML: {error}") from None


def named(path: str, remedy: str) -> str:
    """A path as it is written; ValueError where it is empty, as a shell's variable may be: that is the folder here."""
    if not path.strip():
        raise ValueError(f"an empty path; write {remedy}")
    return path


def explain(error: ValidationError, of: type[BaseModel]) -> str:
    """The first mistake pydantic found in a table of the given kind, as one line that names the key."""
    first = error.errors()[0]
    places = [str(place) for place in first["loc"]]
    key = ".".join(places)
    if first["type"] == "value_error":
        told = first["msg"].removeprefix("Value error, ")
        return f"{key}: {told}" if key else told  # of the whole table
    valid = re.findall("'(.+?)'", first.get("ctx", {}).get("expected", ""))
    remedy = _remedy(of, places, difflib.get_close_matches(str(first["input"]), valid, n=1))
    if first["type"] == "missing":
        return f"{key} is missing{remedy}"
    if first["type"] != "extra_forbidden":
        told = re.sub(r"\btuple\b", "list", f"{first['msg'][0].lower()}{first['msg'][1:]}")
        return f"{key} = {first['input']!r}: {re.sub('dictionary( or instance of .*)?', 'table', told)}{remedy}"
    names = list(_fields(of, places[:-1]))
    near = difflib.get_close_matches(places[-1], names, n=1, cutoff=0.4)
    hint = f"did you mean {'.'.join([*places[:-1], near[0]])}?" if near else f"valid: {', '.join(names)}"
    return f"unknown key {key}: {hint}"


def _remedy(of: type[BaseModel], places: list[str], near: list[str]) -> str:
    """What to write for a value that is wrong: the word that is near, else the default; nothing where it has none."""
    for end in range(len(places), 0, -1):  # of a place in a list, the list's
        field = _fields(of, places[: end - 1]).get(places[end - 1])
        if field is None:
            continue
        usual, key = field.get_default(call_default_factory=True), ".".join(places[:end])
        if isinstance(usual, BaseModel | dict):
            return f"; write {key}.KEY = VALUE" if end == len(places) else ""
        if usual is PydanticUndefined:
            return ""
        if near and end == len(places):
            return f"; write {key} = {json.dumps(near[0])}"
        return f"; or remove {key}" if usual in (None, ()) else f"; write {key} = {json.dumps(usual)}"
    return ""


def _fields(model: type[BaseModel], parents: list[str]) -> dict[str, FieldInfo]:
    """The fields of a table in a table."""
    within: Any = model
    for parent in parents:
        if isinstance(within, type) and issubclass(within, BaseModel):
            within = within.model_fields[parent].annotation
        else:  # a place in a tuple, or a key of a dict: what those hold
            held = [kind for kind in get_args(within) if isinstance(kind, type) and issubclass(kind, BaseModel)]
            if not held:
                return {}
            within = held[0]
    return within.model_fields if isinstance(within, type) and issubclass(within, BaseModel) else {}
