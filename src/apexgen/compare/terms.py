"""A contest's file: the world, the budget, and who takes part."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from apexgen import __version__
from apexgen.config import Table, explain, read_table
from apexgen.objectives import Objective, build_objective
from apexgen.objectives.check import nearest

PLANES = ("ring", "checkerboard")
SHIPPED = {"ring": "plane.toml", "checkerboard": "plane.toml", "scenes": "scenes.toml"}  # each world's usual contest


class Terms(Table):
    """One contest: everything that its file says, the same for all who take part."""

    world: Literal["ring", "checkerboard", "scenes"]
    budget: float = Field(gt=0)  # network evaluations of a batch; a backward counts two
    seeds: int = Field(3, ge=1)  # trainings of each contestant
    teacher_steps: int = Field(4_000, ge=1)  # of flow matching, in the worlds of points
    records: int = Field(24_000, ge=1)  # training captions with a picture each, in scenes
    per_task: int = Field(20, ge=1)  # held-out captions of each task, in scenes
    train: dict[str, Any] = Field(default_factory=dict)  # batch, learning_rate ... of every run, in scenes
    shared: dict[str, Any] = Field(default_factory=dict)  # what each contestant's table says unless it says otherwise
    # An objective's table; its name, where that has none; and a budget of its own, where length is what is compared.
    contestants: dict[str, dict[str, Any]] = Field(min_length=1)

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "Terms":
        idle = ("records", "per_task", "train") if self.world in PLANES else ("teacher_steps",)
        for name in idle:
            if name in self.model_fields_set:
                raise ValueError(f'{name} has no effect with world = "{self.world}"; remove it')
        for key in self.shared:
            if all(key in table for table in self.contestants.values()):
                raise ValueError(f"shared.{key} has no effect where every contestant has its own; remove it")
        return self

    def told(self, name: str) -> dict[str, Any]:
        """All that a contestant's table says, with what it shares and its objective's name."""
        return {"name": name} | self.shared | self.contestants[name]

    def objectives(self) -> dict[str, Objective]:
        """The contestants, ready to train. ValueError, one line, names the contestant that is described wrongly."""
        ready, beside = {}, " with shared" if self.shared else ""
        for name in self.contestants:
            fields = self.told(name)
            fields.pop("budget", None)
            try:
                ready[name] = build_objective(str(fields.pop("name")), fields)
            except ValueError as error:
                raise ValueError(f"contestants.{name}{beside}: {error}") from None
        return ready

    def budgets(self) -> dict[str, float]:
        """The evaluations each contestant has. ValueError, one line, for one that is no positive number."""
        budgets = {name: self.told(name).get("budget", self.budget) for name in self.contestants}
        for name, budget in budgets.items():
            if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 < budget < math.inf:
                raise ValueError(f"contestants.{name}: budget = {budget!r}: write budget = {self.budget:.0f}")
        return budgets

    def of(self, name: str) -> dict[str, Any]:
        """All that a contestant's entry depends on, as JSON has it."""
        common = self.model_dump(mode="json", exclude={"contestants", "shared", "budget"})
        objective = asdict(self.objectives()[name])  # type: ignore[call-overload]  # every objective is a dataclass
        named = str(self.told(name)["name"])
        told = {"version": __version__, "name": named, "objective": objective, "budget": self.budgets()[name]}
        return json.loads(json.dumps(common | told))


def load_terms(file: Path | None, names: Sequence[str], changed: dict[str, Any]) -> Terms:
    """A contest's file, or without one the shipped contest of changed["world"], with some of it changed.

    names: the contestants who take part, all of them where empty; changed: keys of Terms, those that are None left out.
    Raises ValueError, one line, for a file, key, value or contestant that is wrong.
    """
    changed = {key: value for key, value in changed.items() if value is not None}
    world = changed.get("world", "ring")
    if world not in SHIPPED:
        raise ValueError(
            f"unknown --world {world!r}: write --world {nearest(world, SHIPPED)}; valid: {', '.join(SHIPPED)}"
        )
    table = read_table(file or Path(str(files("apexgen.compare") / SHIPPED[world]))) | changed
    there = table.get("contestants", {})
    for name in names:
        if name not in there:
            raise ValueError(
                f"unknown --objectives {name!r}: write --objectives {nearest(name, there)}; valid: {', '.join(there)}"
            )
    if names:
        table["contestants"] = {name: there[name] for name in names}
    try:
        return Terms.model_validate(table)
    except ValidationError as error:
        raise ValueError(explain(error, Terms)) from None
