"""A run's configuration: frozen, validated, one TOML file in, dotted overrides, the resolved TOML out."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PRESETS = ("attention", "attention+mlp", "all-linear")  # of the modules that a LoRA adapts


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Model(Table):
    """The pretrained pipeline and what of it trains."""

    path: str = "scenes"  # a diffusers pipeline folder; "scenes" is the embedded one
    size: int | None = Field(None, ge=1)  # pixels a side of its pictures; the network's own unless given
    tune: Literal["lora", "full"] = "lora"
    rank: int | None = Field(None, ge=1)  # of the LoRA; 32 unless given
    targets: str | tuple[str, ...] = ()  # one of PRESETS, or names of linear modules; empty: the family's own
    lora: str | None = None  # a LoRA file, safetensors, of the teacher; the student is distilled on top of it
    lora_mode: Literal["merge", "stack"] | None = None  # added to the weights, or beside them; "merge" unless given
    checkpointing: bool = False  # compute activations again in the backward pass, for less memory
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the device is fast in it

    @model_validator(mode="before")
    @classmethod
    def _resolve_lora(cls, table: Any) -> Any:
        if not isinstance(table, dict) or table.get("lora") is None:
            if isinstance(table, dict) and table.get("lora_mode") is not None:
                raise ValueError('lora_mode is of a LoRA file; remove it, or write lora = "FILE.safetensors"')
            return table
        if table.get("tune") == "full" and table.get("lora_mode") == "stack":
            raise ValueError('tune = "full" has no adapters to stack; write lora_mode = "merge"')
        return {"lora_mode": "merge"} | table

    @model_validator(mode="before")
    @classmethod
    def _resolve_rank(cls, table: Any) -> Any:
        if not isinstance(table, dict) or table.get("tune", "lora") == "lora":
            return {"rank": 32} | table if isinstance(table, dict) else table
        if "rank" in table or table.get("targets"):
            raise ValueError('rank and targets are of a LoRA; remove them, or write tune = "lora"')
        return table

    @field_validator("targets", mode="before")
    @classmethod
    def _check_targets(cls, targets: Any) -> Any:
        names = [targets] if isinstance(targets, str) else targets
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"a preset ({', '.join(PRESETS)}) or a list of names, not {targets!r}")
        for name in names:
            if isinstance(targets, str) != (name in PRESETS):
                [near] = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0)
                kind = "no preset" if isinstance(targets, str) else "a preset, not a module"
                raise ValueError(f'"{name}" is {kind}; write targets = "{near}", or a list of names of modules')
        return targets


class Data(Table):
    """Where prompts come from, and pictures for objectives that need them."""

    source: str = (
        "scenes"  # "scenes", or a text file with one prompt a line, or a folder of pictures with .txt captions
    )
    limit: int | None = Field(None, ge=1)  # use that many records only


class Train(Table):
    """The optimisation."""

    steps: int = Field(1000, ge=1)
    batch: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1)  # batches a step: their gradients are averaged; memory is that of one
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = Field(1.0, gt=0)  # largest norm of the gradient
    on_divergence: Literal["stop", "skip"] = "stop"  # at a loss or gradient that is not finite; skip: a few in a row
    warmup: int = Field(20, ge=0)  # steps of linear rise of the learning rate
    schedule: Literal["linear", "cosine", "constant"] = "linear"  # after it: a fall to zero at the last step, or none
    ema: float = Field(0.99, ge=0, lt=1)  # decay of the average that is sampled and exported
    seed: int = 0
    save_every: int = Field(200, ge=1)
    preview_every: int = Field(200, ge=1)
    preview_prompts: int = Field(6, ge=1)
    keep: int = Field(2, ge=1)  # newest checkpoints kept


class Run(Table):
    """One run: everything that its folder's config.toml says."""

    folder: str = "runs/unnamed"
    objective: dict[str, Any] = Field(default_factory=lambda: {"name": "apex"})
    model: Model = Field(default_factory=lambda: Model.model_validate({}))
    data: Data = Data()
    train: Train = Train()


def load_run(path: str | Path | None, overrides: Sequence[str] = ()) -> Run:
    """Read a run file and apply overrides such as "train.steps=100".

    Raises ValueError, one line, for a missing or broken file, an unknown key (with the nearest valid one), or a value
    out of range.
    """
    table = read_table(Path(path)) if path is not None else {}
    for override in overrides:
        _apply(table, override)
    return validate(table)


def read_table(file: Path) -> dict[str, Any]:
    """The tables of a TOML file; ValueError, one line, where it is missing or broken."""
    if not file.is_file():
        raise ValueError(f"{file}: no such run file")
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid TOML: {error}") from None


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
    if not equals or not key:
        raise ValueError(f"override {override!r}: write KEY=VALUE, such as train.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ValueError(f"override {override!r}: {parent} is a value, not a table")
    table[last] = value


def explain(error: ValidationError, of: type[BaseModel]) -> str:
    """The first mistake pydantic found in a table of the given kind, as one line that names the key."""
    first = error.errors()[0]
    places = [str(place) for place in first["loc"]]
    key = ".".join(places)
    if first["type"] == "value_error":
        return f"{key}: {first['msg'].removeprefix('Value error, ')}"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] != "extra_forbidden":
        return f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
    names = _valid_names(of, places[:-1])
    near = difflib.get_close_matches(places[-1], names, n=1, cutoff=0.4)
    hint = f"did you mean {'.'.join([*places[:-1], near[0]])}?" if near else f"valid: {', '.join(names)}"
    return f"unknown key {key}: {hint}"


def _valid_names(model: type[BaseModel], parents: list[str]) -> list[str]:
    for parent in parents:
        annotation = model.model_fields[parent].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
