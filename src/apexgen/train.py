"""Distillation: the step, and the loop around it that logs, previews, saves and resumes."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from apexgen import checkpoint
from apexgen.backbones.base import fast_attention
from apexgen.config import Run, dump_run
from apexgen.cost import peak_memory_bytes
from apexgen.data import Batches, Reading
from apexgen.files import write_whole
from apexgen.interrupt import Elsewhere, Stopped
from apexgen.objectives import Batch, Draw, Nets, Objective, build_objective, described
from apexgen.optimizer import open_optimizer, rate
from apexgen.parallel import ALONE, Team
from apexgen.shard import like, reduced_once, whole
from apexgen.student import Student
from apexgen.velocities import Velocity, guided

HIGHER_IS_BETTER = ("one_step_score",)  # of what train.keep_best may be
MOST_SKIPPED = 5  # steps in a row that are not finite: the last of them stops the run


@dataclass
class Trainer:
    """Everything that changes while training, and the fixed parts it needs."""

    run: Run
    student: Student
    corpus: Batches
    shape: tuple[int, int, int]  # (C, h, w) of the latents that are drawn from prompts alone
    step: int = 0
    seconds_before: float = 0.0  # training time of the parts before this one
    skipped: int = 0  # steps that were not finite and changed nothing, with train.on_divergence = "skip"
    skipped_in_a_row: int = 0
    best: dict[str, Any] | None = None  # evaluation, as checkpoint.State has it
    team: Team = ALONE

    def __post_init__(self) -> None:
        self.objective = open_objective(self.run)
        self.optimizer = open_optimizer(self.run.train, self.student.trained.values())

    @property
    def samples(self) -> int:
        """Records that a step sees, of all processes."""
        return self.run.train.batch * self.run.train.accumulate * self.team.count

    @property
    def teacher(self) -> Velocity:
        """What the student is to draw like: its teacher, guided as the objective says, and where."""
        guidance, until = (getattr(self.objective, name, 1.0) for name in ("guidance", "guidance_until"))
        return guided(self.student.teacher, self.corpus.null, guidance, until)

    def advance(self) -> dict[str, Any]:
        """One training step; returns what it logs.

        A loss or gradient that is not finite, in whichever process, changes nothing but the step's number.
        FloatingPointError where train.on_divergence = "stop", or too many were skipped in a row.
        """
        settings = self.run.train
        logs = self.team.mean(self._descend())
        if not self.student.sharded:  # whose gradients FSDP2 averages as it shards them
            self.team.average_gradients(self.student.trained.values())
        norm = whole(torch.nn.utils.clip_grad_norm_(self.student.trained.values(), settings.clip))
        logs |= {"gradient_norm": float(norm), "learning_rate": self.optimizer.param_groups[0]["lr"]}
        bad = [name for name, value in logs.items() if not math.isfinite(value)]
        if bad:
            logs = self._skip(bad) | {name: value for name, value in logs.items() if name not in bad}
        else:
            self.optimizer.step()
            self.student.update_average(settings.ema, self.step)
            self.skipped_in_a_row = 0
        self.optimizer.zero_grad()
        self.step += 1
        return logs | ({"skipped": self.skipped} if settings.on_divergence == "skip" else {})

    def _descend(self) -> dict[str, Any]:
        """The gradient of this step, batch by batch, and its learning rate; returns the losses' means.

        All is drawn for the step as a whole and then cut, by process and by batch, so that N batches of B are one of
        N B, for every objective whose loss is a mean over samples.
        """
        settings, device = self.run.train, self.student.backbone.device
        mine, batch = self.team.share(self.samples), self._read()
        # Seeded by the step: a resumed run draws what an unbroken one would have drawn.
        generator = torch.Generator(device).manual_seed(settings.seed * 7_919 + self.step)
        shape = self.shape if batch.x is None else batch.x.shape[1:]  # pictures of another bucket have another
        draw = self.objective.draw((self.samples, *shape), generator)
        if self.objective.takes_snapshot(self.step):
            self.student.take_snapshot()
        factor = rate(self.step, settings.steps, settings.warmup, settings.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        nets, parts = self.student.nets(), settings.accumulate
        logs: dict[str, Any] = {}
        once = self.student.sharded and settings.reduce_gradients == "step"
        with reduced_once(self.student.backbone.network) if once else nullcontext():
            for first in mine[:: settings.batch]:
                held = batch.rows(slice(first - mine.start, first - mine.start + settings.batch)).to(device)
                drawn = draw.rows(slice(first, first + settings.batch))
                part = descend(self.objective, nets, held, drawn, self.step, parts)
                logs |= {name: logs.get(name, 0) + value / parts for name, value in part.items()}
        return logs

    def _read(self) -> Batch:
        """This process's rows of the step's batch; what was bad in some process's is then known to all.

        Where one can't read a source, or too many records are bad, all stop: one raises ValueError, the others
        Elsewhere. What was encoded before has nothing to tell, and no process waits for another.
        """
        mine, corpus = self.team.share(self.samples), self.corpus
        asked = self.step, self.samples, self.run.train.seed, slice(mine.start, mine.stop)
        if isinstance(corpus, Reading):

            def act() -> tuple[dict[str, str], bool]:
                corpus.look(*asked)
                return corpus.skipped.tell()

            while corpus.skipped.hear(self.team.by_each(act)):  # another process's bad rows move those of this one
                self.team.by_first(corpus.skipped.judge)
        return corpus.batch(*asked)

    def _skip(self, bad: list[str]) -> dict[str, Any]:
        """Count a step that is not finite; returns which losses were not, and on which records."""
        settings = self.run.train
        records = self.corpus.names(self.step, self.samples, settings.seed)
        found = f"step {self.step}: {', '.join(bad)} not finite (seed {settings.seed}, records {records})"
        advice = "Lower train.learning_rate, or lengthen objective.warmup, in another folder"
        if settings.on_divergence == "stop":
            skip = '; or write train.on_divergence = "skip" and go on in this one'
            raise self.team.agreed(FloatingPointError(f"{found}; nothing was changed by this step. {advice}{skip}"))
        if self.skipped_in_a_row + 1 == MOST_SKIPPED:
            before = f"like the {MOST_SKIPPED - 1} steps before it, skipped"
            raise self.team.agreed(FloatingPointError(f"{found}, {before}. {advice}"))
        self.skipped += 1
        self.skipped_in_a_row += 1
        return {"not_finite": bad, "records": records}

    def state(self) -> checkpoint.State:
        """What a checkpoint holds."""
        student = self.student
        return checkpoint.State(
            self.step, student.trained, student.average, self.optimizer.state_dict(), student.kept,
            self.skipped, self.skipped_in_a_row, self.best,
        )  # fmt: skip

    def note(self, said: dict[str, float]) -> bool:
        """Whether an evaluation of this step is the best so far, which is then remembered; an equal one is not.

        One by another metric or of other prompts, before the run was resumed, is not compared with.
        """
        settings = self.run.train
        if settings.keep_best is None or not math.isfinite(value := said[settings.keep_best]):
            return False
        by = {"metric": settings.keep_best, "prompts": settings.evaluate_prompts}
        if self.best is not None and by.items() <= self.best.items():
            higher, before = settings.keep_best in HIGHER_IS_BETTER, self.best["value"]
            if not (value > before if higher else value < before):
                return False
        self.best = {"step": self.step, "value": value} | by
        return True

    def save(self, folder: Path) -> None:
        """Write a checkpoint into a run's folder. All processes call it, and the first writes.

        What is known of the data comes first: a checkpoint must never know less of it than when it was made.
        """

        def save_data() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            self.corpus.save(folder)

        self.team.by_first(save_data)
        checkpoint.save(folder / "checkpoints", self.state(), dump_run(self.run), self.run.train.keep, self.team)

    def restore(self, state: checkpoint.State) -> None:
        """Go on from a checkpoint. ValueError when it is of another student."""
        self.student.load(state.weights, state.average, state.kept)
        self.optimizer.load_state_dict(self._sharded_alike(state.optimizer))
        self.step, self.skipped, self.skipped_in_a_row = state.step, state.skipped, state.skipped_in_a_row
        self.best = state.best if self.run.train.keep_best is not None else None

    def _sharded_alike(self, saved: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's whole state, its moments as this process holds their weights."""
        weights, state = list(self.student.trained.values()), {}
        for index, values in saved["state"].items():
            own = weights[index]
            alike = {key: like(value, own) for key, value in values.items() if getattr(value, "shape", ()) == own.shape}
            state[index] = values | alike
        return saved | {"state": state}


def open_objective(run: Run) -> Objective:
    """The objective a run describes. ValueError for an unknown name or field."""
    fields = dict(run.objective)
    return build_objective(str(fields.pop("name", "apex")), fields)


def resolved(run: Run) -> Run:
    """The run with every field of its objective, so that what it says stays so whatever a default becomes."""
    return run.model_copy(update={"objective": described(open_objective(run))})


def descend(objective: Objective, nets: Nets, batch: Batch, draw: Draw, step: int, parts: int = 1) -> dict[str, float]:
    """Add the gradient of every term, one after another, so that one graph at a time is held; returns the logs.

    parts: how many batches make the step, and the gradient is divided by.
    """
    logs: dict[str, float] = {}
    with fast_attention(draw.noises[0].device):
        for loss in objective.terms(nets, batch, draw, step):
            if loss.value.requires_grad:  # a part may have no row of a term
                (loss.value / parts).backward()
            logs |= {loss.name: float(loss.value.detach())} | {name: float(value) for name, value in loss.logs.items()}
    return logs


def train(
    trainer: Trainer,
    folder: Path,
    on_step: Callable[[int, dict[str, Any]], None],
    asked_to_stop: Callable[[], bool] = lambda: False,
    evaluate: Callable[[], dict[str, float]] = dict,
) -> float:
    """Train from the trainer's step to the run's last; returns seconds spent here.

    Writes metrics.jsonl and checkpoints/. `on_step` is called after each step with its number and what it logged; what
    `evaluate` returns, every train.evaluate_every steps and after the last, is part of that.
    Raises Stopped, with a checkpoint of the last step taken, once `asked_to_stop` says so between two steps, to
    whichever of the processes.
    """
    settings, team = trainer.run.train, trainer.team
    metrics = folder / "metrics.jsonl"
    trainer.seconds_before = team.by_first(lambda: _keep_until(metrics, trainer.step))
    began = time.perf_counter()
    stop = team.any(asked_to_stop())
    with (metrics if team.first else Path(os.devnull)).open("a") as file:
        while trainer.step < settings.steps and not stop:
            logs, better = _step(trainer, folder), False
            if settings.evaluate_every and is_due(trainer.step, settings.evaluate_every, settings.steps):
                said = team.mean(evaluate())
                logs, better = logs | said, trainer.note(said)
            elapsed = trainer.seconds_before + time.perf_counter() - began
            file.write(json.dumps({"step": trainer.step, "seconds": round(elapsed, 3)} | logs) + "\n")
            file.flush()
            stop = team.any(asked_to_stop())
            if better or is_due(trainer.step, settings.save_every, settings.steps) or stop:
                trainer.save(folder)
            on_step(trainer.step, logs)
    if stop or team.any(asked_to_stop()):
        kept = "saved; the same command goes on from it" if trainer.step else "nothing to save; the same command begins"
        raise Stopped(f"stopped after step {trainer.step} of {settings.steps}, {kept}")
    return time.perf_counter() - began


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether what is done every so many steps, and after the last, is done now."""
    return step % every == 0 or step == steps


def _step(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """What a training step logs, with its speed and the most memory the process has had."""
    began = time.perf_counter()
    try:
        logs = trainer.advance()
    except (ValueError, Elsewhere):
        if trainer.team.first and trainer.corpus.skipped is not None:
            trainer.corpus.skipped.write(folder)  # too many, perhaps
        raise
    speed = 1 / (time.perf_counter() - began)
    return logs | {"steps_per_second": round(speed, 4), "peak_memory_bytes": peak_memory_bytes()}


def _keep_until(metrics: Path, step: int) -> float:
    """Drop the lines of steps that a resumed run will take again; returns the seconds spent until `step`."""
    metrics.parent.mkdir(parents=True, exist_ok=True)
    if not metrics.is_file():
        return 0.0
    kept = [record for record in _whole_lines(metrics) if record["step"] <= step]
    write_whole(metrics, "".join(json.dumps(record) + "\n" for record in kept).encode())
    return kept[-1]["seconds"] if kept else 0.0


def _whole_lines(metrics: Path) -> Iterator[dict[str, Any]]:
    """The lines that were written whole: a kill may cut the last one short, a power cut leave others as zeros."""
    for line in metrics.read_bytes().split(b"\n"):
        with suppress(ValueError):
            yield json.loads(line)
