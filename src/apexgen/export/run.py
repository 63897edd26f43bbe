"""A finished run, exported, reopened and compared with the run itself before its folder appears."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from apexgen.backbones.task_lora import count_adapted
from apexgen.config import dump_run
from apexgen.distill import base_folder, open_trained, read_run
from apexgen.export.comfyui import write_comfyui
from apexgen.export.diffusers import (
    difference,
    export_student,
    lora_layers,
    lora_modules,
    open_exported,
    refuse_second_time,
)
from apexgen.export.merged import check_weights, merged_weights
from apexgen.files import whole_folder
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
    difference: float | None  # of the stock pipeline's pictures and ours; no stock ComfyUI is here to draw one


def export_run(run_folder: Path, to: str, out: Path | None = None) -> Exported:
    """Export the averaged student of a run's newest checkpoint to `out`, RUN/export-<to> unless given.

    Raises ValueError, and writes nothing, for a folder that is no run or holds none of this model's weights, for an
    objective or family that the target can't take, for a folder that is there already, and when what was written does
    not open again with every module in effect and the same pictures.
    """
    if to not in TARGETS:
        raise ValueError(f"--to {to}: write one of {', '.join(TARGETS)}")
    target = out or run_folder / f"export-{to}"
    run, saved = read_run(run_folder)
    if target.exists():
        raise ValueError(f"{target} is there already: remove it, or give another folder with --out")
    if not target.parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}")
    objective = open_objective(run)
    refuse_second_time(objective.needs_second_time)
    if to == "comfyui" and run.model.lora is not None:
        raise ValueError(f"{run_folder} was distilled on top of {run.model.lora}; write --to merged, which holds both")
    student = open_trained(run, saved)
    student.backbone.precision = None  # the stock pipelines compute in that of the weights
    with whole_folder(target) as partial:
        if to == "comfyui":
            modules, seen = write_comfyui(student, partial, objective.renoises), None
        else:
            export_student(student, base_folder(run), partial, objective.renoises, merge=to == "merged")
            noise = draw_noise([0], student.backbone.latent_shape())
            modules, seen = check_export(student, partial, base_folder(run), objective.renoises, [PROMPT], noise)
        (partial / "config.toml").write_text(dump_run(run))
    return Exported(target, modules, seen)


def check_export(
    student: Student, folder: Path, base: Path, renoises: bool, prompts: Sequence[str], noise: Tensor
) -> tuple[int, float]:
    """Modules in effect and the largest difference of a picture in 1 and 4 steps, in an export opened again.

    ValueError where a module has no effect, or a picture differs by LIMIT or more.
    """
    pipeline = open_exported(folder, base, student.backbone.task_lora).to(student.backbone.device)
    trained = len(_modules(student))
    with student.averaged():
        if (folder / "transformer").is_dir():
            check_weights(folder, merged_weights(student))
        elif (loaded := count_adapted(pipeline.transformer, ADAPTER)) != trained:
            raise ValueError(f"{folder.name}: {loaded} of {trained} modules took effect")
    steps = (1,) if renoises else (1, 4)  # between more, the stock scheduler draws noise of its own
    seen = max(difference(student, pipeline, prompts, noise, number) for number in steps)
    if not seen < LIMIT:
        raise ValueError(f"{folder.name}: the stock pipeline's pictures differ from ours by {seen:.1e}")
    return trained, seen


def _modules(student: Student) -> set[str]:
    """The names of what was trained."""
    if student.mode == "lora":
        return lora_modules(lora_layers(student))
    return {name.rpartition(".")[0] for name in student.weights}
