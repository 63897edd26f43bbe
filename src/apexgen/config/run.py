"""A run's configuration: one TOML file in, dotted overrides, the resolved TOML out."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field, ValidationError, field_validator

from apexgen.config.data import Data
from apexgen.config.model import Model
from apexgen.config.table import Table, explain, named, read_table
from apexgen.config.train import Train


class Run(Table):
    """One run: everything that its folder's config.toml says."""

    folder: str = "runs/unnamed"
    objective: dict[str, Any] = Field(default_factory=lambda: {"name": "apex"})
    model: Model = Field(default_factory=lambda: Model.model_validate({}))
    data: Data = Data()
    train: Train = Train()

    @field_validator("folder")
    @classmethod
    def _named(cls, folder: str) -> str:
        return named(folder, 'folder = "runs/mine"')


def load_run(path: str | Path | None, overrides: Sequence[str] = ()) -> Run:
    """Read a run file and apply overrides such as "train.steps=100".

    Raises ValueError, one line, for a missing or broken file, an unknown key (with the nearest valid one), or a value
    out of range.
    """
    table = read_table(Path(path)) if path is not None else {}
    for override in overrides:
        _apply(table, override)
    return validate(table)


def validate(table: dict[str, Any]) -> Run:
    """A Run from plain tables; ValueError, one line, naming the first wrong key."""
    try:
        return Run.model_validate(table)
    except ValidationError as error:
        raise ValueError(explain(error, Run)) from None


def dump_run(run: Run) -> str:
    """The resolved run as TOML; reading it back gives an equal Run."""
    return tomli_w.dumps(run.model_dump(mode="json", exclude_none=True))


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ValueError(f"override {override!r}: write KEY=VALUE, such as train.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        # TOML wants digits on both sides of a point, and a shell's user may write .5; a bare word is a string.
        value = float(text) if re.fullmatch(r"[+-]?(\.\d+|\d+\.)(e[+-]?\d+)?", text) else text
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ValueError(f"override {override!r}: {parent} is a value, not a table")
    table[last] = value
