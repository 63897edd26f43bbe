"""The objectives, one paper each: to add one, write its file and add a line to OBJECTIVES."""

from collections.abc import Mapping
from dataclasses import asdict
from difflib import get_close_matches
from math import isfinite
from typing import Any

from apexgen.objectives.apex import Apex
from apexgen.objectives.base import Batch, Draw, Loss, Nets, Objective
from apexgen.objectives.check import defaults, line, nearest
from apexgen.objectives.consistency import Consistency
from apexgen.objectives.ctm import Ctm
from apexgen.objectives.ddo import Ddo
from apexgen.objectives.dmd import Dmd
from apexgen.objectives.flow_matching import FlowMatching
from apexgen.objectives.ladd import Ladd
from apexgen.objectives.lcm import Lcm
from apexgen.objectives.mean_flow import MeanFlow
from apexgen.objectives.progressive import Progressive
from apexgen.objectives.rcgm import Rcgm
from apexgen.objectives.sana_sprint import SanaSprint
from apexgen.objectives.shortcut import Shortcut
from apexgen.objectives.twin_flow import TwinFlow

OBJECTIVES: dict[str, type[Objective]] = {
    "apex": Apex,
    "consistency": Consistency,
    "ctm": Ctm,
    "ddo": Ddo,
    "dmd": Dmd,
    "flow_matching": FlowMatching,
    "ladd": Ladd,
    "lcm": Lcm,
    "mean_flow": MeanFlow,
    "progressive": Progressive,
    "rcgm": Rcgm,
    "sana_sprint": SanaSprint,
    "shortcut": Shortcut,
    "twin_flow": TwinFlow,
}

__all__ = ["OBJECTIVES", "Batch", "Draw", "Loss", "Nets", "Objective", "build_objective", "described"]


def build_objective(name: str, fields: Mapping[str, object]) -> Objective:
    """The objective called `name` with the given fields; ValueError names the nearest right key, if one is near."""
    if name not in OBJECTIVES:
        raise ValueError(
            f'unknown objective "{name}"; write {line("name", nearest(name, OBJECTIVES))} '
            f"(there are {', '.join(OBJECTIVES)})"
        )
    usual = defaults(OBJECTIVES[name])
    for key, value in fields.items():
        if key not in usual:
            near = get_close_matches(key, usual, n=1)
            remedy = f"write {line(near[0], value)}" if near else f"remove it (its fields are {', '.join(usual)})"
            raise ValueError(f'objective "{name}" has no field "{key}"; {remedy}')
        if not _fits(value, usual[key]):
            raise ValueError(
                f"{key} must be of type {type(usual[key]).__name__}, got {value!r}; write {line(key, usual[key])}"
            )
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(f"{key} must be a finite number, got {value}; write {line(key, usual[key])}")
    return OBJECTIVES[name](**fields)


def described(objective: Objective) -> dict[str, Any]:
    """The table of a run file that builds an objective: its name and every field."""
    name = next(name for name, kind in OBJECTIVES.items() if kind is type(objective))
    return {"name": name} | asdict(objective)  # type: ignore  # every objective is a dataclass


def _fits(value: object, usual: object) -> bool:
    """Whether a value has the type of the default; None stands for a word yet to be chosen."""
    if isinstance(usual, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(usual) or (usual is None and isinstance(value, str))
