"""A finished run, exported, reopened and compared with the run itself before its folder appears."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from apexgen.backbones.task_lora import count_adapted
from apexgen.config import Run, dump_run
from apexgen.distill import base_folder, open_trained, read_run
from apexgen.export.comfyui import WORKFLOW, write_comfyui
from apexgen.export.diffusers import export_student, open_exported, refuse_second_time
from apexgen.export.merged import check_weights, merged_weights
from apexgen.export.patched import open_patched
from apexgen.export.proof import Proof, difference, take_proof
from apexgen.files import check_folder, whole_folder
from apexgen.generate import draw_noise
from apexgen.student import ADAPTER, Student
from apexgen.train import open_objective

TARGETS = ("diffusers", "comfyui", "merged")
LIMIT = 1e-4  # of the difference of a pixel in [0, 1]
PROMPT = "a photo of a red circle"


@dataclass(frozen=True)
class Exported:
    """What was written, and what was seen when it was opened again."""

    folder: Path
    modules: int  # that took effect: all that the run trained
    difference: float  # of the stock pipeline's pictures and ours; for ComfyUI, of the base's with the LoRA added


def export_run(run_folder: Path, to: str, out: Path | None = None, which: str = "latest") -> Exported:
    """Export the averaged student of a run, at a checkpoint (read_run), to `out`, RUN/export-<to> unless given.

    Raises ValueError, and writes nothing, for a folder that is no run or holds none of this model's weights, for an
    objective or family that the target can't take, for a folder that is there already, and when what was written does
    not open again with every module in effect and the same pictures.
    """
    if to not in TARGETS:
        raise ValueError(f"--to {to}: write one of {', '.join(TARGETS)}")
    target = out or run_folder / f"export-{to}"
    run, saved = read_run(run_folder, which)
    if target.exists():
        raise ValueError(f"{target} is there already: remove it, or give another folder with --out")
    if not target.parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}")
    check_folder(target, "--out")
    objective = open_objective(run)
    refuse_second_time(objective.needs_second_time)
    base = base_folder(run)
    student = open_trained(as_published(run, to), saved)
    with whole_folder(target) as partial:
        if to == "comfyui":
            write_comfyui(student, partial, objective.renoises)
        else:
            export_student(student, base, partial, objective.renoises, merge=to == "merged")
        noise = draw_noise([0], student.backbone.latent_shape())
        proof = take_export_proof(student, partial, objective.renoises, [PROMPT], noise)
        del student  # two pipelines are too much for a large model
        gc.collect()
        modules, seen = check_export(proof, partial, base)
        (partial / "config.toml").write_text(dump_run(run))
    return Exported(target, modules, seen)


def as_published(run: Run, to: str = "diffusers") -> Run:
    """The run with its base as it was published: what is exported is compared on that, in float32, exactly.

    For ComfyUI a task's LoRA is beside the base: it becomes a file of its own.
    """
    changed: dict[str, Any] = {"weights": "float32", "precision": "float32", "checkpointing": False}
    if to == "comfyui" and run.model.lora is not None and run.model.tune == "lora":
        changed["lora_mode"] = "stack"
    return run.model_copy(update={"model": run.model.model_copy(update=changed)})


def take_export_proof(student: Student, folder: Path, renoises: bool, prompts: Sequence[str], noise: Tensor) -> Proof:
    """What the export in a folder must show: pictures in 1 and 4 steps. ValueError where its weights are others."""
    if (folder / "transformer").is_dir():
        with student.averaged():
            check_weights(folder, merged_weights(student))
    return take_proof(student, prompts, noise, (1, 4), renoises)


def check_export(proof: Proof, folder: Path, base: Path) -> tuple[int, float]:
    """Modules in effect and the largest difference of a picture, in an export opened again.

    ValueError where a module has no effect, or a picture differs by LIMIT or more.
    """
    wanted = proof.modules
    if (folder / WORKFLOW).is_file():
        (pipeline, loaded), wanted = open_patched(folder, base, proof.scheduler), proof.moved
    else:
        pipeline = open_exported(folder, base, proof.task_lora)
        loaded = wanted if (folder / "transformer").is_dir() else count_adapted(pipeline.transformer, ADAPTER)
    if loaded != wanted:
        raise ValueError(f"{folder.name}: {loaded} of {wanted} modules took effect")
    seen = difference(proof, pipeline.to(proof.device))
    if not seen < LIMIT:
        raise ValueError(f"{folder.name}: the stock pipeline's pictures differ from ours by {seen:.1e}")
    return wanted, seen
