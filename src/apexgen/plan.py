"""What a run would take, before it takes it: memory by part, time and disk. Nothing is written.

Of several processes the small step is taken in one, whole, and divided as they would divide it. Where one has no memory
for what they share, none is taken, and the plan is by the headers of the pipeline's files.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from apexgen.backbones.base import Backbone
from apexgen.config import Run
from apexgen.config.train import Train
from apexgen.cost import bytes_of, memory_there, numbers_in
from apexgen.data import Batches
from apexgen.data.hub import PREFIX
from apexgen.distill import base_folder, open_backbone
from apexgen.encode import count_records
from apexgen.least import FULL, least_memory, read_outline
from apexgen.nearest import Need, check_memory, may_recompute, nearest, within_memory
from apexgen.objectives.base import fewest_rows
from apexgen.parallel import settle, take_place
from apexgen.refuse import check_run
from apexgen.report.record import BACKWARD
from apexgen.room import (
    MOMENTS,
    cached_bytes,
    check_cache,
    check_room,
    checkpoint_bytes,
    checkpoints_held,
    encoded_bytes,
    moments,
    room_free,
    room_needed,
    size,
)
from apexgen.shard import repeated_blocks
from apexgen.student import Student
from apexgen.train import Trainer, open_objective
from apexgen.trial import FEW, few_records, held_in, measure, small_trainer, takes_snapshots

MEASURED = 8  # the most records of the step that is taken


@dataclass(frozen=True)
class Plan:
    """What a run takes; sizes in bytes."""

    parameters: int  # of the network, without what is added to train
    trainable: int
    memory: dict[str, int]  # of one process, by part
    records: int | None  # samples in an epoch; None: to count them a stream of the hub would be read to its end
    seen: int  # samples in the whole run
    measured: int  # records of the step that was taken; activations and seconds are scaled from it. 0: none was
    seconds: float | None  # of a step, where one was taken
    checkpoint: int
    disk_needed: int  # at the moment when the oldest checkpoint is not yet removed, less what is there already
    disk_free: int
    memory_there: int  # of the device that trains
    checkpointed: int | None = None  # activations with model.checkpointing, where the memory wants it and it may be on
    encoded: int = 0  # texts and pictures of all records, in memory or in the run's cache; 0 where none is kept
    cached: int = 0  # of what is in the cache already
    evaluations: float | None = None  # of the network, for each sample of a step: its cost, as run.json will have it


def show_plan(run: Run, console: Console) -> Plan:
    """Print a run's plan. ValueError, one line, where it can't work, with the nearest plan that can.

    Under a launcher, or with WORLD_SIZE=8 before the command, it is that of so many processes, and the first prints.
    """
    run = settle(run)
    if not take_place().first:
        console = Console(quiet=True)
    check_run(run)
    check_memory(run, base_folder(run))
    with console.status("taking a small step"):
        plan = make_plan(run) if _one_holds(run) else outline_plan(run)
    for name, value in describe(run, plan).items():
        console.print(f"{name:<24}{value}", highlight=False, soft_wrap=True)
    refuse_impossible(run, plan)
    return plan


def make_plan(run: Run) -> Plan:
    """Open the run's pipeline and student, and take one step of a few records, thrown away afterwards."""
    settings = run.train
    measured = min(settings.batch, fewest_rows(open_objective(run).term_shares, MEASURED))
    with within_memory(run, steps=False):
        trainer = small_trainer(run, measured)
    with within_memory(run):
        held = held_in(trainer, settings.batch)
        seconds, evaluations = measure(trainer)
    student = trainer.student
    common = _common(run, student.backbone, trainer.corpus, checkpoint_bytes(trainer))
    memory = _memory(trainer, held, _parts(run))
    checkpointed = None
    if sum(memory.values()) > common["memory_there"] and may_recompute(run):
        student.backbone.network.enable_gradient_checkpointing()
        checkpointed = held_in(trainer, settings.batch)
    return Plan(
        parameters=_own_parameters(student),
        trainable=sum(weight.numel() for weight in student.trained.values()),
        memory=memory,
        measured=measured,
        seconds=seconds * settings.batch * settings.accumulate / measured,
        checkpointed=checkpointed,
        evaluations=evaluations,
        **common,
    )


def outline_plan(run: Run) -> Plan:
    """The plan of a run whose network, whole, one process has no memory for: neither opened nor stepped."""
    outline = read_outline(base_folder(run))
    own = sum(map(prod, outline.network.values()))
    held = 2 + MOMENTS[run.train.optimizer] + takes_snapshots(open_objective(run))  # of a checkpoint: trained, average
    backbone = open_backbone(run, with_pictures=open_objective(run).needs_pictures, with_network=False)
    return Plan(
        parameters=own,
        trainable=own,  # only what is tuned whole is shared
        memory=least_memory(run, outline),
        measured=0,
        seconds=None,
        **_common(run, backbone, few_records(run, backbone), int(held * FULL * own)),
    )


def _one_holds(run: Run) -> bool:
    """Whether one process has the memory for a step of a run, also for what several would share."""
    if _parts(run) == 1:
        return True
    alone = run.model_copy(update={"train": run.train.model_copy(update={"parallel": None, "processes": None})})
    least = least_memory(alone, read_outline(base_folder(run)))
    return sum(least.values()) <= memory_there()


def _common(run: Run, backbone: Backbone, few: Batches, checkpoint: int) -> dict[str, Any]:
    """What of a plan no step is taken for."""
    endless = run.data.encode == "step" and run.data.limit is None
    of_the_hub = any(origin.source.startswith(PREFIX) for origin in run.data.mixture or (run.data,))
    records = None if endless and of_the_hub else count_records(run.data)
    return {
        "records": records,
        "seen": run.train.steps * run.train.samples,
        "checkpoint": checkpoint,
        "disk_needed": room_needed(run, checkpoint),
        "disk_free": room_free(run),
        "memory_there": memory_there(),
        "encoded": encoded_bytes(run, few, records or 0),
        "cached": cached_bytes(run, backbone, open_objective(run).needs_pictures),
    }


def refuse_impossible(run: Run, plan: Plan) -> None:
    """ValueError where the memory can't hold a step, or a disk what is written, with the nearest run it can."""
    need = Need(sum(plan.memory.values()), plan.memory_there, plan.memory.get("activations", 0), plan.checkpointed)
    if need.memory > need.there and not run.train.offload:  # then the parts are in two memories
        raise ValueError(
            f"a step needs {size(need.memory)} of memory and the device has {size(need.there)}; "
            + nearest(run, read_outline(base_folder(run)), need)
        )
    beside = check_cache(run, max(plan.encoded - plan.cached, 0))
    check_room(run, plan.checkpoint, plan.disk_free - beside)


def describe(run: Run, plan: Plan) -> dict[str, str]:
    """The plan as lines: what, and how much of it."""
    settings = run.train
    scaled = f"from one step of {plan.measured}"
    lines = {
        "parameters": f"{plan.parameters:,}",
        "trainable parameters": f"{plan.trainable:,}",
        "memory": size(sum(plan.memory.values())),
    }
    if settings.processes is not None:
        cut = "a part of the trained weights each" if settings.parallel == "fsdp" else "all weights each"
        lines["memory"] += f" in each of {settings.processes} processes, {cut}"
    for part, count in plan.memory.items():
        lines[f"  {part}"] = size(count) + (f" ({scaled})" if part == "activations" else "")
    if plan.encoded:
        lines["encoded"] = (
            f"{size(plan.encoded)} in {run.data.cache or 'memory'} (from {min(plan.records or FEW, FEW)} records)"
        )
    lines |= {
        "samples per epoch": "not counted: the stream would be read to its end"
        if plan.records is None
        else f"{plan.records:,}",
        "epochs": "not known" if plan.records is None else f"{plan.seen / plan.records:.2f}",
        "steps": f"{settings.steps:,} of {settings.samples} samples",
    }
    if plan.seconds is None:
        lines["not known"] = "activations, seconds and cost of a step: one process has no memory to take one"
    else:
        hours = plan.seconds * settings.steps / 3600
        lines["seconds per step"] = f"{plan.seconds:.2f} ({scaled}), {hours:.2f} hours in all"
        counted = f"{plan.evaluations:.2f} evaluations of the network a sample"
        lines["cost of a step"] = f"{counted}; a backward counts {BACKWARD}"
    return lines | {
        "checkpoint": f"{size(plan.checkpoint)}, {_kept(run.train)}",
        "disk": f"{size(plan.disk_needed)} needed for checkpoints, {size(plan.disk_free)} free",
    }


def _kept(settings: Train) -> str:
    best = "" if settings.keep_best is None else f" and the best by {settings.keep_best}"
    return f"the {settings.keep} newest kept{best}, {checkpoints_held(settings)} at once at most"


def _parts(run: Run) -> int:
    """Over how many processes what is as large as the trained weights is divided."""
    return (run.train.processes or 1) if run.train.parallel == "fsdp" else 1


def _memory(trainer: Trainer, activations: int, cut: int) -> dict[str, int]:
    student = trainer.student
    modules = [part for part in student.backbone.pipeline.components.values() if isinstance(part, nn.Module)]
    still = [weight for module in modules for weight in module.parameters() if not weight.requires_grad]
    trains = _bytes(student.trained.values())
    trained = trains // cut
    parts = {"weights": _bytes(still)}
    if student.mode == "full":
        parts["teacher's copy"] = _bytes(student.weights.values()) // cut
    if cut > 1:  # while a block runs backward: its weights, and their gradients before they are cut
        blocks = repeated_blocks(student.backbone.network)
        parts["a block, gathered"] = 2 * max(_bytes(block.parameters()) for block in blocks)
    return parts | {
        "LoRA" if student.mode == "lora" else "trained weights": trained,
        "gradients": trains if trainer.run.train.reduce_gradients == "step" else trained,
        "optimizer": _bytes(moments(trainer)) // cut,
        "average": _bytes([*student.average.values(), *student.kept.values()]) // cut,
        "activations": activations,
    }


def _own_parameters(student: Student) -> int:
    """The network's parameters, without what was added to train."""
    weights = student.backbone.network.parameters()
    return sum(numbers_in(weight) for weight in weights if student.mode == "full" or not weight.requires_grad)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(map(bytes_of, tensors))
