"""A table of settings: frozen, nothing unknown in it, and mistakes told in one line."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError


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


def explain(error: ValidationError, of: type[BaseModel]) -> str:
    """The first mistake pydantic found in a table of the given kind, as one line that names the key."""
    first = error.errors()[0]
    places = [str(place) for place in first["loc"]]
    key = ".".join(places)
    if first["type"] == "value_error":
        told = first["msg"].removeprefix("Value error, ")
        return f"{key}: {told}" if key else told  # of the whole table
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] != "extra_forbidden":
        return f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
    names = _valid_names(of, places[:-1])
    near = difflib.get_close_matches(places[-1], names, n=1, cutoff=0.4)
    hint = f"did you mean {'.'.join([*places[:-1], near[0]])}?" if near else f"valid: {', '.join(names)}"
    return f"unknown key {key}: {hint}"


def _valid_names(model: type[BaseModel], parents: list[str]) -> list[str]:
    within: Any = model
    for parent in parents:
        if isinstance(within, type) and issubclass(within, BaseModel):
            within = within.model_fields[parent].annotation
        else:  # a place in a tuple, or a key of a dict: what those hold
            held = [kind for kind in get_args(within) if isinstance(kind, type) and issubclass(kind, BaseModel)]
            if not held:
                return []
            within = held[0]
    return list(within.model_fields) if isinstance(within, type) and issubclass(within, BaseModel) else []
