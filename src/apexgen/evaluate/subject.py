"""Who is timed or swept, in one word.

runs/mine@1, runs/mine#best, pipeline@50:3, pipeline+lora.safetensors@4, stock:pipeline@28:4.
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from apexgen.backbones.diffusion import BACKBONES, find_adapter, open_pipeline, quiet
from apexgen.backbones.index import read_index
from apexgen.backbones.task_lora import load_task_lora
from apexgen.drawer import Drawer, Model, is_run, open_model
from apexgen.precision import best_device, choose_precision
from apexgen.scenes.pipeline import pipeline_folder
from apexgen.size import Size

FORM = re.compile(r"(stock:)?(.+?)(?:#(latest|best|\d+))?(?:\+(.+\.safetensors))?(?:@(\d+))?(?::(\d+(?:\.\d+)?))?")


class Draws(Protocol):
    """What a Drawer and a StockDrawer have in common."""

    @property
    def name(self) -> str: ...

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray: ...


@dataclass(frozen=True)
class Subject:
    """A model to open, and how it is to draw."""

    text: str  # as it was written
    folder: str
    checkpoint: str  # of a run
    lora: Path | None
    steps: int | None
    guidance: float  # 1 is none
    stock: bool  # drawn by its own diffusers pipeline, not by ours

    @property
    def file_name(self) -> str:
        """A name for a folder of its pictures."""
        return re.sub(r"[^\w.-]+", "-", self.text).strip("-.")


def read_subject(text: str) -> Subject:
    """Read [stock:]FOLDER[#CHECKPOINT][+LORA][@STEPS][:GUIDANCE]; ValueError, one line, for anything else."""
    match = FORM.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no model; write FOLDER, FOLDER#CHECKPOINT@STEPS or FOLDER+LORA.safetensors@STEPS:GUIDANCE"
        )
    stock, folder, checkpoint, lora, steps, guidance = match.groups()
    if steps is not None and int(steps) < 1:
        raise ValueError(f"{text}: at least one step; write {folder}@1")
    count, chosen = int(steps) if steps else None, checkpoint or "latest"
    return Subject(text, folder, chosen, Path(lora) if lora else None, count, float(guidance or 1), bool(stock))


@dataclass(frozen=True)
class StockDrawer:
    """A diffusers pipeline that draws by its own call."""

    name: str
    pipeline: Any = field(repr=False)
    arguments: dict[str, Any]  # of its call
    precision: str
    size: Size | None

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Pictures (B, H, W, 3) in [0, 1]."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn = self.pipeline(prompt=list(prompts), generator=generators, output_type="np", **self.arguments)
        return np.asarray(drawn.images)


def open_subject(subject: Subject, size: Size | None = None, precision: str = "auto") -> Model:
    """Our model of a subject; ValueError, one line, where it can't be opened."""
    if subject.stock:
        raise ValueError(f"{subject.text}: a stock pipeline draws in its own way; leave stock: out")
    _check_checkpoint(subject)
    own_size = is_run(subject.folder)
    return open_model(subject.folder, subject.lora, None if own_size else size, precision, subject.checkpoint)


def _check_checkpoint(subject: Subject) -> None:
    if subject.checkpoint != "latest" and (subject.stock or not is_run(subject.folder)):
        raise ValueError(
            f"{subject.text}: {subject.folder} is no run, with checkpoints; leave #{subject.checkpoint} out"
        )


def open_drawer(subject: Subject, size: Size | None = None, precision: str = "auto") -> Drawer | StockDrawer:
    """What draws for a subject, in one step unless it says.

    A stock pipeline of a family of ours is called for the same plain steps, size and guidance; another with
    num_inference_steps and guidance_scale. Its weights are cast to the precision that ours would compute in.
    ValueError, one line, where it can't be opened or knows no guidance.
    """
    steps = subject.steps or 1
    if not subject.stock:
        return open_subject(subject, size, precision).drawer(steps, subject.guidance)
    _check_checkpoint(subject)
    folder = pipeline_folder(subject.folder)
    family = read_index(folder)["_class_name"]
    pipeline = open_pipeline(folder)
    if subject.lora is not None:
        load_task_lora(pipeline, subject.lora)
    device = best_device()
    dtype = choose_precision(precision, device) or torch.float32
    with quiet():
        pipeline.to(device, dtype)
    if family in BACKBONES:
        adapter = find_adapter(family)(pipeline)
        adapter.size = size
        arguments, size = adapter.pipeline_arguments(steps, subject.guidance), adapter.sides
    else:
        arguments = _plain_arguments(pipeline, subject, steps, size)
    return StockDrawer(subject.text, pipeline, arguments, str(dtype).removeprefix("torch."), size)


def _plain_arguments(pipeline: Any, subject: Subject, steps: int, size: Size | None) -> dict[str, Any]:
    wanted: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": subject.guidance}
    if size is not None:
        wanted |= size._asdict()
    known = inspect.signature(pipeline.__call__).parameters
    arguments = {name: value for name, value in wanted.items() if name in known}
    if subject.guidance != 1 and "guidance_scale" not in known:
        raise ValueError(
            f"{subject.text}: {type(pipeline).__name__} takes no guidance; leave :{subject.guidance:g} out"
        )
    return arguments
