"""A small step of a run, taken and thrown away: what it holds for backward, and how long and dear it is."""

import time

from apexgen.backbones.base import Backbone
from apexgen.config import Run
from apexgen.cost import most_held
from apexgen.data import Batches
from apexgen.distill import bring_network, encodes_first, open_backbone, open_student
from apexgen.encode import encode
from apexgen.objectives import Objective
from apexgen.report import Record
from apexgen.train import Trainer, open_objective

FEW = 16  # records that are encoded for it


def small_trainer(run: Run, measured: int) -> Trainer:
    """The run before its last step, when every term is at work, with a few records."""
    changed = {"batch": measured, "accumulate": 1, "on_divergence": "stop", "parallel": None, "processes": None}
    small = run.model_copy(update={"train": run.train.model_copy(update=changed)})
    pictures = open_objective(run).needs_pictures
    backbone = open_backbone(run, with_pictures=pictures, with_network=not encodes_first(run))
    corpus = few_records(run, backbone)
    bring_network(run, backbone, corpus)
    if run.data.encode != "step":
        backbone.forget_encoders()
    trainer = Trainer(small, open_student(run, backbone), corpus, backbone.latent_shape())
    if takes_snapshots(trainer.objective):  # it has one by the last step
        trainer.student.take_snapshot()
    last, objective = run.train.steps - 1, trainer.objective
    trainer.step = last - (last - objective.least_steps) % objective.period
    return trainer


def few_records(run: Run, backbone: Backbone) -> Batches:
    """A few of a run's records, encoded in memory."""
    few = run.data.model_copy(update={"limit": min(run.data.limit or FEW, FEW), "cache": None})
    return encode(few, backbone, open_objective(run).needs_pictures)


def takes_snapshots(objective: Objective) -> bool:
    """Whether a student is kept as it was on the way."""
    return type(objective).takes_snapshot is not Objective.takes_snapshot


def held_in(trainer: Trainer, batch: int) -> int:
    """The most bytes held for backward in a step of `batch` records, by two smaller ones.

    What they share does not grow with the batch: the copies of weights that autocast makes in its precision.
    """
    student, run, measured = trainer.student, trainer.run, trainer.run.train.batch
    own = [*student.backbone.network.parameters(), *student.trained.values(), *student.average.values()]
    held = {}
    for records in {measured, measured if batch == measured else max(1, measured // 2)}:
        trainer.run = run.model_copy(update={"train": run.train.model_copy(update={"batch": records})})
        held[records] = most_held(trainer.advance, own)
        trainer.step -= 1
    trainer.run = run
    few = min(held)
    return held[measured] + (batch - measured) * (held[measured] - held[few]) // max(1, measured - few)


def measure(trainer: Trainer) -> tuple[float, float]:
    """A step's seconds, and the network's evaluations for each of its samples: means of as many as have every term."""
    period = trainer.objective.period
    record = Record(None, trainer.student.backbone.network, trainer.samples, [], period)
    began = time.perf_counter()
    for _ in range(period):
        record.begin()
        trainer.advance()
        record.end()
    seconds = (time.perf_counter() - began) / period
    record.close()
    return seconds, record.told["evaluations_per_step"]
