"""The settings of a run's model."""

import difflib
from typing import Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from apexgen.config.table import Table, named
from apexgen.size import Size

PRESETS = ("attention", "attention+mlp", "all-linear")  # of the modules that a LoRA adapts


class Model(Table):
    """The pretrained pipeline and what of it trains."""

    path: str = "scenes"  # a diffusers pipeline folder, or "hub:owner/name"; "scenes" is the embedded one
    size: Size | None = None  # a side of its pictures, px, or "WIDTHxHEIGHT"; the network's own square unless given
    tune: Literal["lora", "full"] = "lora"
    rank: int | None = Field(None, ge=1)  # of the LoRA; 32 unless given
    targets: str | tuple[str, ...] = ()  # one of PRESETS, or names of linear modules; empty: the family's own
    lora: str | None = None  # a LoRA file, safetensors, of the teacher; the student is distilled on top of it
    lora_mode: Literal["merge", "stack"] | None = None  # added to the weights, or beside them; "merge" if it can be
    checkpointing: bool = False  # compute activations again in the backward pass, for less memory
    weights: Literal["float32", "bfloat16", "8bit", "4bit"] = "float32"  # how the base under a LoRA is held in memory
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the device is fast in it

    @field_validator("path")
    @classmethod
    def _named(cls, path: str) -> str:
        return named(path, 'path = "FOLDER", or remove it for the embedded pipeline')

    @field_validator("size", mode="before")
    @classmethod
    def _read_size(cls, size: Any) -> Any:
        return None if size is None else Size.read(size)

    @field_serializer("size")
    def _write_size(self, size: Size | None) -> int | str | None:
        return None if size is None else size.written

    @model_validator(mode="before")
    @classmethod
    def _resolve_lora(cls, table: Any) -> Any:
        if not isinstance(table, dict) or table.get("lora") is None:
            if isinstance(table, dict) and table.get("lora_mode") is not None:
                raise ValueError('lora_mode is of a LoRA file; remove it, or write lora = "FILE.safetensors"')
            return table
        if table.get("tune") == "full" and table.get("lora_mode") == "stack":
            raise ValueError('tune = "full" has no adapters to stack; write lora_mode = "merge"')
        quantised = table.get("weights") in ("8bit", "4bit")
        if quantised and table.get("lora_mode") == "merge":
            raise ValueError('quantised weights take no LoRA in; write lora_mode = "stack"')
        return {"lora_mode": "stack" if quantised else "merge"} | table

    @model_validator(mode="after")
    def _check_weights(self) -> "Model":
        if self.weights != "float32" and self.tune == "full":
            raise ValueError(f'weights = "{self.weights}" can\'t be tuned; write tune = "lora", or weights = "float32"')
        if self.weights != "float32" and self.precision != "auto":
            raise ValueError(f'weights = "{self.weights}" computes in bfloat16; write precision = "auto"')
        return self

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
