"""A model as something that draws, prompts and seeds in, pictures out: a run, a pipeline, or a pipeline with a LoRA.

Each picture depends on its prompt and its seed, not on the others of its batch.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.backbones.header import read_header
from apexgen.backbones.hub import PREFIX, public_name
from apexgen.backbones.task_lora import SCHEDULER
from apexgen.condition import Condition
from apexgen.config import validate
from apexgen.data.files import PICTURE_ENDINGS
from apexgen.distill import base_folder, open_backbone, open_trained, read_run
from apexgen.files import check_file, check_folder, write_whole
from apexgen.generate import CHUNK, draw_noises, make_pictures
from apexgen.parallel import take_place
from apexgen.progress import bar
from apexgen.report import picture_grid
from apexgen.sample import uniform_grid
from apexgen.size import Size
from apexgen.train import open_objective
from apexgen.velocities import Velocity, guided

RENOISING = "FlowMatchLCMScheduler"  # what an export of a renoising student has for a scheduler


@dataclass(frozen=True)
class Drawer:
    """A velocity of an opened model, its number of steps, and its guidance (1 is none).

    Raises ValueError, one line, for steps below 1, or a guidance below 0 or without end.
    """

    name: str  # such as "student@2"
    model: "Model"
    velocity: Velocity = field(repr=False)
    steps: int
    guidance: float = 1.0
    renoises: bool = False  # draws fresh noise between its steps

    def __post_init__(self) -> None:
        uniform_grid(self.steps)  # refuses steps < 1
        check_guidance(self.guidance)

    @property
    def evaluations(self) -> int:
        """Network evaluations a picture; guidance takes two a step."""
        return self.steps * (1 if self.guidance == 1 else 2)

    def settings(self) -> dict[str, Any]:
        """All that the pictures depend on beside prompts and seeds; weights are told by their hash."""
        return self.model.identity | {
            "drawer": self.name,
            "steps": self.steps,
            "guidance": self.guidance,
            "evaluations": self.evaluations,
            "renoises": self.renoises,
        }

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Pictures (B, H, W, 3) float32 in [0, 1]; ValueError for a prompt that is too long for the model."""
        assert len(prompts) == len(seeds), f"{len(prompts)} prompts for {len(seeds)} seeds"
        backbone = self.model.backbone
        noises = draw_noises(seeds, backbone.latent_shape(), self.steps if self.renoises else 1)
        c, fresh = backbone.encode_text(prompts), noises[1:] if self.renoises else None
        null = None if self.guidance == 1 else self.model.null
        velocity = self.velocity if null is None else guided(self.velocity, null, self.guidance)
        return make_pictures(backbone, velocity, c, noises[0], self.steps, fresh)


@dataclass(frozen=True)
class Model:
    """An opened model: one set of weights, of which several drawers may be made."""

    name: str  # its folder's, or its LoRA file's
    backbone: Backbone = field(repr=False)
    original: Velocity = field(repr=False)
    files: tuple[Path, ...]  # folders and files that its weights came from
    average: dict[str, Tensor] = field(repr=False, default_factory=dict)  # a run's, which are in no file of these
    distilled: Velocity | None = field(repr=False, default=None)
    renoises: bool = False

    def drawer(self, steps: int, guidance: float = 1.0) -> Drawer:
        """What one opens the model for: the student where it holds one, else the pipeline."""
        return self.teacher(steps, guidance) if self.distilled is None else self.student(steps, guidance)

    def student(self, steps: int, guidance: float = 1.0) -> Drawer:
        """The distilled weights, a run's averaged; ValueError where there are none."""
        if self.distilled is None:
            raise ValueError(f"{self.name} is a pipeline without a student; give a run's folder, or a LoRA with --lora")
        return Drawer(_name("student", steps, guidance), self, self.distilled, steps, guidance, self.renoises)

    def teacher(self, steps: int, guidance: float = 1.0) -> Drawer:
        """What the student was made of."""
        renoises = self.renoises and self.distilled is None
        return Drawer(_name("teacher", steps, guidance), self, self.original, steps, guidance, renoises)

    @cached_property
    def null(self) -> Any:
        """The condition of the empty prompt."""
        return self.backbone.encode_text([""])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Name, family, size, precision and the SHA-256 of the weights, which reads them all once."""
        network = self.backbone.network
        precision = self.backbone.precision or next(network.parameters()).dtype
        return {
            "model": self.name,
            "family": self.backbone.family,
            "size": self.backbone.sides.written,
            "precision": str(precision).removeprefix("torch."),
            "weights": hash_weights(self.files, self.average),
        }


def check_guidance(guidance: float) -> None:
    """ValueError, one line, for a guidance below 0, or without end."""
    if not 0 <= guidance < float("inf"):
        raise ValueError(f"--guidance {guidance:g}: at least 0; write --guidance 1 for none")


def _name(role: str, steps: int, guidance: float) -> str:
    return f"{role}@{steps}" + (f" guided {guidance:g}" if guidance != 1 else "")


def open_model(
    folder: str | Path,
    lora: Path | None = None,
    size: Size | None = None,
    precision: str = "auto",
    checkpoint: str = "latest",
) -> Model:
    """Open a run's folder, at a checkpoint, a pipeline's, "hub:owner/name" or "scenes".

    lora: an exported file for the pipeline.
    Raises ValueError, one line, for a folder that is neither, or for a setting that a run already has.
    """
    take_place()
    if is_run(folder):
        return _open_run(Path(folder), lora, size, precision, checkpoint)
    elsewhere = str(folder) == "scenes" or str(folder).startswith(PREFIX)
    if not elsewhere and not (Path(folder) / "model_index.json").is_file():
        raise ValueError(
            f"{folder} is no run's folder (no config.toml) and no pipeline's; \"scenes\" is the embedded one, "
            f'"{PREFIX}owner/name" the hub\'s'
        )
    if checkpoint != "latest":
        raise ValueError(f"--checkpoint {checkpoint}: {folder} is a pipeline, which has none; leave --checkpoint out")
    table: dict[str, Any] = {"path": str(folder), "size": size, "precision": precision}
    stacked = {"lora": str(lora), "lora_mode": "stack"} if lora is not None else {}
    run = validate({"model": table | stacked})
    backbone, base = open_backbone(run), base_folder(run)
    if lora is not None:
        scheduler = read_header(lora).metadata.get(SCHEDULER)
        renoises = scheduler == RENOISING if scheduler else _has_renoising_scheduler(lora.parent)
        return Model(lora.stem, backbone, _without_adapters(backbone), (base, lora), {}, backbone, renoises)
    renoises = _has_renoising_scheduler(base)
    name = public_name(base) if str(folder).startswith(PREFIX) else _folder_name(folder)
    return Model(name, backbone, backbone, (base,), renoises=renoises)


def is_run(folder: str | Path) -> bool:
    """Whether a folder is a run's, which has its own size."""
    return (Path(folder) / "config.toml").is_file() and not (Path(folder) / "model_index.json").is_file()


def _open_run(folder: Path, lora: Path | None, size: Size | None, precision: str, checkpoint: str) -> Model:
    for name, given in (("--lora", lora), ("--size", size)):
        if given is not None:
            raise ValueError(f"{name} {given}: {folder} is a run, which has its own; leave {name} out")
    run, saved = read_run(folder, checkpoint)
    if precision != "auto":
        told = run.model_dump(mode="json", exclude_none=True)
        run = validate(told | {"model": told["model"] | {"precision": precision}})
    student = open_trained(run, saved)
    files = (base_folder(run), *([Path(run.model.lora)] if run.model.lora else []))
    renoises = open_objective(run).renoises
    return Model(_folder_name(folder), student.backbone, student.teacher, files, student.average, student.ema, renoises)


def _without_adapters(backbone: Backbone) -> Velocity:
    """The pipeline as it was before it was given a LoRA."""

    def velocity(x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        backbone.network.disable_adapters()
        try:
            return backbone(x, t, r, c)
        finally:
            backbone.network.enable_adapters()

    return velocity


def _folder_name(folder: str | Path) -> str:
    return "scenes" if str(folder) == "scenes" else Path(folder).resolve().name


def _has_renoising_scheduler(folder: Path) -> bool:
    config = folder / "scheduler" / "scheduler_config.json"
    return config.is_file() and json.loads(config.read_text()).get("_class_name") == RENOISING


def hash_weights(files: Sequence[Path], tensors: dict[str, Tensor] | None = None) -> str:
    """SHA-256 of the .safetensors of folders or files, by name and content, and of tensors; its first 16 digits."""
    total = hashlib.sha256()
    for root in files:
        for file in sorted(root.rglob("*.safetensors")) if root.is_dir() else [root]:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").digest()
            total.update((str(file.relative_to(root)) if root.is_dir() else "").encode() + digest)
    for name, tensor in sorted((tensors or {}).items()):
        total.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def check_out(out: Path) -> None:
    """ValueError where a picture could not be written in the end: no such folder, one in its place, or another kind."""
    if out.suffix != ".png" and out.suffix.lower() in PICTURE_ENDINGS:
        raise ValueError(f"--out {out}: a grid is a .png; write --out {out.with_suffix('.png')}")
    if out.suffix != ".png":
        check_folder(out, "--out")
        return
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it, or write --out {out.name}")
    check_file(out, "--out", "sample.png")


def save_grid(drawer: Drawer, prompts: Sequence[str], seed: int, out: Path, count: int = 1) -> Path:
    """Draw each prompt `count` times, picture i of all from seed + i, into one file: a row a prompt.

    Raises ValueError for a too long prompt.
    """
    repeated = [prompt for prompt in prompts for _ in range(count)]
    with bar("drawing", drawer.steps * -(-len(repeated) // CHUNK)) as advance:

        def velocity(x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
            v = drawer.velocity(x, t, r, c)
            advance()
            return v

        pictures = replace(drawer, velocity=velocity).draw(repeated, range(seed, seed + len(repeated)))
    labels = [drawer.name if count == 1 else f"{drawer.name}, {column + 1}" for column in range(count)]
    columns = {label: pictures[column::count] for column, label in enumerate(labels)}
    content = io.BytesIO()
    picture_grid(prompts, columns).save(content, "PNG")
    write_whole(out, content.getvalue())
    return out
