"""What a judge said of a model: one JSON a run, and tables in which unlike judges never share a column."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from rich.console import Group

from apexgen.config.table import Table, explain
from apexgen.evaluate.grid import Grid
from apexgen.files import write_whole

LIBRARIES = ("apexgen", "torch", "transformers", "diffusers")


class Result(Table):
    """One benchmark, one judge, one model.

    Two results share a column only where benchmark, judge and settings are all equal.
    """

    benchmark: str = Field(min_length=1)  # such as "GenEval"
    judge: str = Field(min_length=1)  # named in full
    model: str = Field(min_length=1)  # who drew, such as "my-run student@1"
    evaluations: int | None = Field(None, ge=1)  # network evaluations a picture; None: not known
    scores: dict[str, float] = Field(min_length=1)
    spread: dict[str, float] = Field(default_factory=dict)  # of scores, where known: their standard error
    n: int = Field(ge=1)  # pictures judged
    counts: dict[str, int] = Field(default_factory=dict)  # pictures of each score, where they are not n
    seeds: tuple[int, ...] = ()  # of the pictures; empty: not known
    settings: dict[str, Any] = Field(
        default_factory=dict
    )  # the protocol: implementation, resize, the judge's weights ...
    notes: tuple[str, ...] = ()  # what a reader of the scores must know
    drawn: dict[str, Any] = Field(default_factory=dict)  # Drawer.settings(), where known
    versions: dict[str, str] = Field(default_factory=lambda: {name: version(name) for name in LIBRARIES})

    @property
    def protocol(self) -> str:
        """What must be equal for two results to be compared."""
        return json.dumps([self.benchmark, self.judge, self.settings], sort_keys=True)


def data_digest(content: Any) -> str:
    """SHA-256 of what models were asked, JSON or dataclasses, its first 16 digits: unlike ones share no column."""
    text = json.dumps(content, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_result(result: Result, file: Path) -> None:
    """Write a result as JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, (result.model_dump_json(indent=1) + "\n").encode())


def load_result(file: Path) -> Result:
    """Read a result; ValueError, one line, for a file that is missing, broken, or no result."""
    if not file.is_file():
        raise ValueError(f"{file}: no such result; make one with: apexgen evaluate --help")
    try:
        return Result.model_validate(json.loads(file.read_text()))
    except ValidationError as error:
        raise ValueError(f"{file}: {explain(error, Result)}") from None
    except ValueError as error:
        raise ValueError(f"{file} is no result: {error}") from None


def by_protocol(results: Sequence[Result]) -> list[list[Result]]:
    """The results in groups that may be compared, in the order they first come up."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.protocol, []).append(result)
    return list(groups.values())


def table(results: Sequence[Result]) -> Group:
    """A table for each protocol: a row a result, a column a score; ± is the standard error."""
    return Group(*(grid.drawn() for grid in grids(results)))


def grids(results: Sequence[Result]) -> list[Grid]:
    """The tables of `table`, for a terminal or a page."""
    groups = by_protocol(results)
    return [_grid(group, told_apart(group[0], groups)) for group in groups]


def told_apart(first: Result, groups: Sequence[Sequence[Result]]) -> dict[str, Any]:
    """The settings by which a protocol differs from others of the same benchmark and judge."""
    others = [
        group[0].settings for group in groups if (group[0].benchmark, group[0].judge) == (first.benchmark, first.judge)
    ]
    names = {name for settings in others for name in first.settings.keys() | settings.keys()}
    return {
        name: first.settings.get(name)
        for name in sorted(names)
        if any(settings.get(name) != first.settings.get(name) for settings in others)
    }


def _grid(group: Sequence[Result], apart: dict[str, Any]) -> Grid:
    first = group[0]
    told = "".join(f"; {name} = {value}" for name, value in apart.items())
    names = list(dict.fromkeys(name for result in group for name in result.scores))
    rows = [
        [result.model, str(result.evaluations or "-"), str(result.n), *(cell(result, name) for name in names)]
        for result in group
    ]
    notes = list(dict.fromkeys(note for result in group for note in result.notes))
    title = f"{first.benchmark}, judged by {first.judge}{told}"
    return Grid(title, ("model", "evaluations", "n", *names), rows, notes)


def cell(result: Result, name: str) -> str:
    """A figure with its spread; - where there is none."""
    if name not in result.scores:
        return "-"
    spread = f" ± {result.spread[name]:.2g}" if name in result.spread else ""
    return f"{result.scores[name]:.4g}{spread}"
