"""What the fields of an objective may be; each refusal is one line that ends with its remedy."""

from collections.abc import Collection
from dataclasses import fields
from difflib import get_close_matches
from json import dumps
from math import inf
from typing import Any

from apexgen.objectives.base import Objective


def defaults(objective: Objective | type[Objective]) -> dict[str, Any]:  # of any field type
    """The fields of an objective, each with its default."""
    return {f.name: f.default for f in fields(objective)}  # type: ignore[arg-type]


def line(name: str, value: object) -> str:
    """The line of a run file that sets a field."""
    return f"{name} = {dumps(value, default=str)}"


def nearest(word: str, valid: Collection[str]) -> str:
    """The valid word that looks most like the given one."""
    return get_close_matches(word, valid, n=1, cutoff=0.0)[0]


def one_of(objective: Objective, name: str, valid: Collection[str]) -> None:
    """ValueError unless the field is one of the valid words."""
    value = getattr(objective, name)
    if value not in valid:
        raise ValueError(
            f"{name} must be one of {', '.join(valid)}, got {value!r}; write {line(name, nearest(str(value), valid))}"
        )


def within(objective: Objective, name: str, low: float, high: float = inf) -> None:
    """ValueError unless the field is finite and low <= field <= high."""
    value = getattr(objective, name)
    if not (low <= value <= high and abs(value) < inf):
        bounds = f"at least {low:g}" if high == inf else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must be {bounds}, got {value}; write {line(name, defaults(objective)[name])}")


def unused(objective: Objective, names: Collection[str], setting: str) -> None:
    """ValueError where one of the fields differs from its default although nothing reads it."""
    for name in names:
        value, usual = getattr(objective, name), defaults(objective)[name]
        if value != usual:
            raise ValueError(f"{line(name, value)} has no effect with {setting}; write {line(name, usual)}")


def robust_fields(objective: Objective) -> None:
    """ValueError unless `power` and `floor` are those of a robust loss; a square, power 0, reads no floor."""
    within(objective, "power", 0)
    within(objective, "floor", 1e-12)
    if objective.power == 0:  # type: ignore[attr-defined]
        unused(objective, ("floor",), "power = 0")


def guided_until(objective: Objective) -> None:
    """ValueError unless `guidance` is at least 1, and `guidance_until` a time that bounds one above 1."""
    within(objective, "guidance", 1)
    within(objective, "guidance_until", 1e-3, 1)
    if objective.guidance == 1:  # type: ignore[attr-defined]
        unused(objective, ("guidance_until",), "guidance = 1.0")
