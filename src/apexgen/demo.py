"""The whole path on the embedded model: distil, score teacher and student alike, export, reopen, report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor

from apexgen.condition import Condition
from apexgen.config import Run, load_run
from apexgen.cost import peak_memory_bytes
from apexgen.distill import base_folder, distill, open_trained, read_run
from apexgen.evaluate.scenes import Examination
from apexgen.export.diffusers import export_student, refuse_second_time
from apexgen.export.run import as_published, check_export, take_export_proof
from apexgen.generate import CHUNK
from apexgen.precision import best_device, fast_in_bfloat16
from apexgen.progress import bar, working
from apexgen.report import environment, table, write_report
from apexgen.rules import TASKS
from apexgen.student import Student
from apexgen.train import open_objective
from apexgen.velocities import Velocity, guided

TEACHER_STEPS, TEACHER_GUIDANCE = 50, 3.0
STUDENT_STEPS = (1, 2, 4)
EXAMINATION_SEED = 1_000_000  # far from the training draws
SHOWN = 2  # captions of each task in the grid
CONFIG = Path(__file__).with_name("demo.toml")
# What fits ten minutes on a CPU that imitates bfloat16, as most laptops do: a step in float32 takes thrice as long.
IN_FLOAT32 = ("model.weights=float32", "train.steps=300", "objective.kl_weight=3.0")


def run_demo(folder: Path, overrides: Sequence[str], ablate: bool, per_task: int, console: Console) -> dict[str, Any]:
    """Run the demo in a folder and return its report; the same call goes on from where it was stopped.

    Raises ValueError, before anything is written, for settings that it could not prove or export in the end.
    """
    here = settings_here()
    run = load_run(CONFIG, [f"folder={folder}", *here, *overrides])
    refuse_second_time(open_objective(run).needs_second_time)
    if here:
        console.print(f"this CPU imitates bfloat16; unless told otherwise, to fit ten minutes: {' '.join(here)}")
    trainer, seconds = distill(run, console)
    mixed = ablation(run) if ablate else None
    if mixed is not None:
        distill(mixed, console)
    console.print("scoring on held-out prompts")
    with working("opening the student"):
        student = open_published(run)
    report, columns, prompts = prove(student, trainer.objective.renoises, per_task, mixed)
    report["training"] = {
        "objective": run.objective,
        "steps": trainer.step,
        "seconds": trainer.seconds_before + seconds,
        "peak_memory_bytes": peak_memory_bytes(),
    }
    with working("exporting, and opening it again"):
        report["export"] = export(student, base_folder(run), folder / "export", trainer.objective.renoises)
    report["environment"] = environment()
    write_report(folder, report, columns, prompts)
    console.print(table(report))
    console.print(f"report: {folder / 'report.html'}   LoRA: {folder / 'export'}")
    return report


def settings_here() -> tuple[str, ...]:
    """What the demo's settings become on this machine; a user's own come after."""
    return () if fast_in_bfloat16(best_device()) else IN_FLOAT32


def ablation(run: Run) -> Run:
    """The same run with the paper's Eq. 25 in place of the KL form; it needs pictures, and has them."""
    changed = {
        "objective": {"name": "apex", "form": "mix"},
        "folder": str(Path(run.folder) / "ablation-mix"),
    }
    return run.model_copy(update=changed)


def open_published(run: Run) -> Student:
    """A run's trained student on the base as it was published, in float32, in which the demo judges."""
    return open_trained(as_published(run), read_run(Path(run.folder))[1])


def prove(
    student: Student, renoises: bool, per_task: int, mixed: Run | None
) -> tuple[dict[str, Any], dict[str, np.ndarray], list[str]]:
    """Teacher and student on the same held-out prompts and noises: the report, pictures, prompts."""
    backbone = student.backbone
    examination = Examination.draw(backbone, per_task, EXAMINATION_SEED)
    guide = guided(student.teacher, backbone.encode_text([""]), TEACHER_GUIDANCE)
    columns: dict[str, np.ndarray] = {}
    report: dict[str, Any] = {"data": examination.judge_data(EXAMINATION_SEED), "student": {}}
    sittings = (TEACHER_STEPS, 1, *STUDENT_STEPS, *[1] * (mixed is not None))
    batches = -(-len(examination.captions) // CHUNK)
    calls = sum(1 + steps * batches for steps in sittings)  # a sitting warms up with one
    with bar("scoring on held-out prompts", calls, still=True) as advance:
        guide, plain, ema = (_counted(velocity, advance) for velocity in (guide, student.teacher, student.ema))
        teacher, columns[f"teacher@{TEACHER_STEPS}"] = examination.sit(backbone, guide, TEACHER_STEPS)
        report["teacher"] = {"steps": TEACHER_STEPS, "guidance": TEACHER_GUIDANCE} | teacher
        report["teacher_1"], columns["teacher@1"] = examination.sit(backbone, plain, 1)
        for steps in STUDENT_STEPS:
            sat = examination.sit(backbone, ema, steps, renoises)
            report["student"][str(steps)], columns[f"student@{steps}"] = sat
        if mixed is not None:
            other = open_published(mixed)
            result, columns["mix@1"] = examination.sit(other.backbone, _counted(other.ema, advance), 1)
            report["ablation"] = {"mix": {"1": result}}
    shown = [task * per_task + index for task in range(len(TASKS)) for index in range(min(SHOWN, per_task))]
    prompts = [examination.captions[index].text for index in shown]
    return report, {name: pictures[shown] for name, pictures in columns.items()}, prompts


def _counted(velocity: Velocity, advance: Callable[[], None]) -> Velocity:
    """The same velocity, which tells of each call."""

    def told(x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        v = velocity(x, t, r, c)
        advance()
        return v

    return told


def export(student: Student, base: Path, target: Path, renoises: bool) -> dict[str, float]:
    """Export the student, reopen it in the stock pipeline, and compare the pictures of 1 and 4 steps."""
    export_student(student, base, target, renoises)
    examination = Examination.draw(student.backbone, 1, EXAMINATION_SEED)
    prompts = [caption.text for caption in examination.captions]
    proof = take_export_proof(student, target, renoises, prompts, examination.noises[0])
    _, seen = check_export(proof, target, base)
    return {"max_difference": seen}
