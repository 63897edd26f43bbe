"""One run from its configuration to a trained student: open, encode, train with progress and previews, resume."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from apexgen import checkpoint, probe
from apexgen.backbones.base import Backbone, cpu_multiplies_in_bfloat16
from apexgen.backbones.diffusion import load_backbone
from apexgen.backbones.hub import find_folder
from apexgen.backbones.task_lora import add_task_lora
from apexgen.backbones.two_times import give_second_time
from apexgen.condition import Condition
from apexgen.config import Run, dump_run, load_run
from apexgen.data import Batches
from apexgen.encode import encode, processes
from apexgen.files import write_whole
from apexgen.generate import draw_noises, make_pictures
from apexgen.interrupt import noted_signals
from apexgen.objectives import Objective
from apexgen.objectives.apex import Apex
from apexgen.report import picture_grid
from apexgen.scenes.pipeline import FOLDER
from apexgen.shift import Shift
from apexgen.student import Student
from apexgen.train import Trainer, open_objective, train
from apexgen.velocities import guided

PREVIEW_STEPS, STUDENT_STEPS = 16, (1, 2, 4)  # of the columns in previews


Watch = Callable[[Trainer], None]


def base_folder(run: Run) -> Path:
    """The pipeline folder a run starts from; "scenes" is the one shipped with the package."""
    return FOLDER if run.model.path == "scenes" else find_folder(run.model.path)


def open_backbone(run: Run) -> Backbone:
    """The run's pipeline on the best device there is, in the run's precision."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone = load_backbone(base_folder(run), device, run.model.weights)
    backbone.precision = choose_precision(run.model.precision, device, run.model.weights)
    backbone.size = run.model.size
    if run.model.lora is not None:
        add_task_lora(backbone, Path(run.model.lora), run.model.lora_mode or "merge")
    backbone.latent_shape()  # refuses a size the family can't draw, before any work
    return backbone


def choose_precision(wanted: str, device: str, weights: str = "float32") -> torch.dtype | None:
    """bfloat16 by default where the device multiplies in it, and for weights that are; None is float32."""
    fast = device == "cuda" or cpu_multiplies_in_bfloat16() or weights != "float32"
    return torch.bfloat16 if wanted == "bfloat16" or (wanted == "auto" and fast) else None


def open_student(run: Run, backbone: Backbone) -> Student:
    """The student the run describes, untrained; with the second time, fake weights or heads its objective needs."""
    objective, model, seed = open_objective(run), run.model, run.train.seed
    if objective.needs_second_time:
        give_second_time(backbone, seed)
    if model.checkpointing:
        if objective.needs_fake_network:  # what is computed again would be so with other weights than it was
            raise ValueError('model.checkpointing does not go with a second network; write objective.name = "apex"')
        if getattr(objective, "difference", None) == 0:
            raise ValueError("model.checkpointing does not go with forward mode; write objective.difference = 0.001")
        backbone.network.enable_gradient_checkpointing()
    heads, shift = objective.blocks_with_heads(len(backbone.blocks)), open_shift(objective, backbone, seed)
    fake = objective.needs_fake_network
    return Student(backbone, model.tune, model.rank or 0, model.targets, seed, fake, heads, shift)


def open_shift(objective: Objective, backbone: Backbone, seed: int) -> Shift | None:
    """The shift of an objective for a backbone's texts, where two numbers do not say it all."""
    if not isinstance(objective, Apex) or objective.is_plain:
        return None
    projected = objective.shift_place == "projection"
    return objective.new_shift(*(backbone.projected_widths() if projected else backbone.encoded_widths()), seed)


def distill(
    run: Run, console: Console, watch: Watch | None = None, corpus: Batches | None = None
) -> tuple[Trainer, float]:
    """Train a run to its last step, going on from its newest checkpoint; returns the trainer and the seconds it took.

    `watch` is called with the trainer after every step; a corpus that is encoded already spares the run's own.

    Writes config.toml, metrics.jsonl, samples/ and checkpoints/ in the run's folder.
    Raises ValueError, before anything is written, for a plan that can't work; Stopped, with everything saved, where
    SIGINT or SIGTERM asked for it.
    """
    check_run(run)
    objective, folder = open_objective(run), Path(run.folder)
    backbone = open_backbone(run)
    if corpus is None:
        corpus = encode(run.data, backbone, objective.needs_pictures, console)
    warn_of_shift(objective, backbone, corpus, console, run.train.seed)
    if run.data.cache is not None:
        backbone.forget_encoders()
    trainer = Trainer(run, open_student(run, backbone), corpus, backbone.latent_shape())
    saved = checkpoint.load_latest(folder / "checkpoints", console.print)
    if saved is not None:
        trainer.restore(saved)
        console.print(f"going on from step {saved.step}")
    elif checkpoint.checkpoints(folder / "checkpoints"):
        console.print("no checkpoint is whole; beginning again at step 0")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.toml", dump_run(run).encode())
    seconds = _train_with_progress(trainer, folder, console, watch)
    return trainer, seconds


def encode_run(run: Run, console: Console) -> None:
    """Build a run's cache on its own. ValueError where it names none."""
    if run.data.cache is None:
        raise ValueError('data.cache is missing: write data.cache = "FOLDER"; without one, training encodes in memory')
    processes()  # each on a device of its own, before the pipeline is opened
    encode(run.data, open_backbone(run), open_objective(run).needs_pictures, console)


def warn_of_shift(objective: Objective, backbone: Backbone, corpus: Batches, console: Console, seed: int = 0) -> None:
    """One line where the network can't see the shift that is to tell APEX's fake field apart; a few small forwards."""
    if not isinstance(objective, Apex) or objective.fake_told != "shifted":
        return
    prompts, c = corpus.examples(2)
    conditions = [c.select([row]) for row in range(len(prompts))]
    if len(set(prompts)) < 2:
        conditions[1:] = [corpus.null]
    plain = probe.Numbers(objective.shift_scale, objective.shift_bias, objective.shift_place)
    shift = open_shift(objective, backbone, seed) or plain
    line = probe.warning(backbone, conditions, corpus.null, shift)
    if line is not None:
        console.print(f"[yellow]warning:[/yellow] {line}", soft_wrap=True)


def check_run(run: Run) -> None:
    """ValueError where a run is too short for its objective, or its folder belongs to another run."""
    least, folder = open_objective(run).least_steps, Path(run.folder)
    if run.train.steps <= least:
        raise ValueError(
            f"train.steps = {run.train.steps}: this objective takes {least} to prepare; "
            f"write train.steps = {2 * (least + 1)}"
        )
    path = folder / "config.toml"
    if not path.is_file():
        return
    old, new = load_run(path).model_dump(), run.model_dump()
    for table in ("objective", "model", "data", "train"):
        for key in old[table].keys() | new[table].keys():
            before, now = old[table].get(key), new[table].get(key)
            if before != now:
                raise ValueError(
                    f"{folder} was begun with {table}.{key} = {before!r}, not {now!r}; write folder = another one, "
                    "or remove it to begin again"
                )


def _train_with_progress(trainer: Trainer, folder: Path, console: Console, watch: Watch | None) -> float:
    settings = trainer.run.train
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with noted_signals() as asked_to_stop, Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=settings.steps, completed=trainer.step, speed="", losses="")
        preview = _Preview(trainer, folder / "samples")
        if trainer.step == 0:
            preview.draw(0)

        def on_step(step: int, logs: dict[str, Any]) -> None:
            if "not_finite" in logs:
                console.print(f"step {step - 1} skipped: {', '.join(logs['not_finite'])} not finite")
            shown = " ".join(
                f"{name} {logs[name]:.3f}" for name in ("fake", "anchor", "kl", "mix", "gap") if name in logs
            )
            speed = progress.tasks[task].speed
            progress.update(task, completed=step, losses=shown, speed=f"{speed:.1f} it/s" if speed else "")
            if step % settings.preview_every == 0 or step == settings.steps:
                preview.draw(step)
            if watch is not None:
                watch(trainer)

        return train(trainer, folder, on_step, asked_to_stop)


class _Preview:
    """The same prompts and noises drawn as training goes: teacher in many steps, student in 1, 2 and 4."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.folder = trainer, folder
        self.prompts, self.condition = trainer.corpus.examples(trainer.run.train.preview_prompts)
        self.noises = draw_noises(range(len(self.prompts)), trainer.shape, max(STUDENT_STEPS))
        student = trainer.student
        guidance = getattr(trainer.objective, "guidance", 1.0)
        teacher = guided(student.teacher, trainer.corpus.null, guidance)
        self.teacher = make_pictures(student.backbone, teacher, self.condition, self.noises[0], PREVIEW_STEPS)

    def draw(self, step: int) -> None:
        columns = {f"teacher@{PREVIEW_STEPS}": self.teacher} | {
            f"student@{steps}": draw_student(
                self.trainer.objective, self.trainer.student, self.condition, self.noises[:steps]
            )
            for steps in STUDENT_STEPS
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        picture_grid(self.prompts, columns).save(self.folder / f"step-{step:06d}.png")


def read_run(folder: Path) -> tuple[Run, checkpoint.State]:
    """A run's configuration and its newest whole checkpoint.

    Raises ValueError for a folder that is no run or has no whole checkpoint; a broken one before it is told of.
    """
    if not (folder / "config.toml").is_file():
        raise ValueError(f"{folder} is no run's folder: it has no config.toml; make one with: apexgen demo")
    run = load_run(folder / "config.toml")
    broken: list[str] = []
    saved = checkpoint.load_latest(folder / "checkpoints", broken.append)
    if saved is None:
        why = f" ({broken[0].partition(';')[0]})" if broken else ""
        raise ValueError(f"{folder} has no whole checkpoint{why}; train it: apexgen train {folder / 'config.toml'}")
    for line in broken:
        print(line, file=sys.stderr)
    return run, saved


def open_trained(run: Run, saved: checkpoint.State) -> Student:
    """The student of a run with its saved weights. ValueError when they are not those of the run's pipeline."""
    student = open_student(run, open_backbone(run))
    student.load(saved.weights, saved.average, saved.kept)
    return student


def draw_student(objective: Objective, student: Student, c: Condition, noises: Tensor) -> np.ndarray:
    """Pictures of the averaged student in as many steps as there are noises for each condition, (steps, B, C, h, w)."""
    fresh = noises[1:] if objective.renoises else None
    return make_pictures(student.backbone, student.ema, c, noises[0], len(noises), fresh)


def peak_memory_bytes() -> int:
    """The most memory this process has held: on the accelerator where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
