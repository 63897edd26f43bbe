"""One run from its configuration to a trained student: open, encode, train with progress and previews, resume."""

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from apexgen import checkpoint, probe
from apexgen.backbones.base import Backbone
from apexgen.backbones.diffusion import load_backbone
from apexgen.backbones.later import fetch_network
from apexgen.backbones.task_lora import LORA_FILE, add_task_lora
from apexgen.backbones.two_times import give_second_time
from apexgen.checkup import Checkup
from apexgen.config import Run, dump_run, load_run
from apexgen.data import Batches, Corpus
from apexgen.data.skipped import listed_in
from apexgen.encode import encode, encode_cache
from apexgen.files import alone, check_folder, write_whole
from apexgen.interrupt import noted_signals
from apexgen.nearest import check_memory, within_memory
from apexgen.objectives import Objective
from apexgen.objectives.apex import Apex
from apexgen.parallel import Team, assembled, settle
from apexgen.precision import best_device, choose_precision, imitated
from apexgen.preview import Preview
from apexgen.progress import training_bar, working
from apexgen.refuse import check_run, refuse_together
from apexgen.report import Record
from apexgen.room import check_room, checkpoint_bytes
from apexgen.scenes.pipeline import pipeline_folder
from apexgen.shard import repeated_blocks, shard
from apexgen.shift import Shift
from apexgen.student import Student
from apexgen.trackers import Trackers
from apexgen.train import Trainer, is_due, open_objective, resolved, train

Watch = Callable[[Trainer], None]
MEASURED = ("gradient_norm", "learning_rate")  # of what a step logs; what the objective says of it comes before


def base_folder(run: Run) -> Path:
    """The pipeline folder a run starts from; "scenes" is the one shipped with the package."""
    return pipeline_folder(run.model.path)


def open_backbone(
    run: Run, sharded: bool = False, with_text: bool = True, with_pictures: bool = True, with_network: bool = True
) -> Backbone:
    """The run's pipeline on the best device there is, in the run's precision. ValueError for a missing LoRA.

    sharded: its network, which a device may have no room for, waits in the processor's memory for `shard`.
    with_text: False leaves the text encoders on the disk until a text is to be encoded.
    with_pictures: False frees what encodes pictures at once.
    with_network: False leaves the network on the disk until `bring_network`, so that a card holds one or the other;
        of a sharded one, for good: the first process has it, and `shard` brings its weights.
    """
    device = best_device()
    backbone = load_backbone(base_folder(run), "cpu" if sharded else device, run.model.weights, with_text, with_network)
    if not with_pictures:
        backbone.forget_picture_encoder()
    if sharded:
        backbone.computes_on, backbone.open_network = torch.device(device), None
        for part in backbone.pipeline.components.values():
            if isinstance(part, nn.Module) and part is not backbone.network:
                part.to(device)
    backbone.precision = choose_precision(run.model.precision, device, run.model.weights)
    backbone.size = run.model.size
    if with_network:
        _add_lora(run, backbone)
    backbone.latent_shape()  # refuses a size the family can't draw, before any work
    return backbone


def _add_lora(run: Run, backbone: Backbone) -> None:
    if run.model.lora is not None:
        if not Path(run.model.lora).is_file():
            raise ValueError(f'model.lora = {run.model.lora!r}: no such file; write model.lora = "FILE.safetensors"')
        add_task_lora(backbone, Path(run.model.lora), run.model.lora_mode or "merge")


def encodes_first(run: Run) -> bool:
    """Whether a run's texts are encoded before its network is opened: where memory is short, in one process."""
    return run.model.weights != "float32" and run.data.encode == "start" and run.train.parallel != "fsdp"


def bring_network(run: Run, backbone: Backbone, corpus: Batches) -> None:
    """Open the network that a backbone has not yet, once all is encoded; ValueError where its LoRA is missing."""
    backbone.text_widths = corpus.null.widths()
    if backbone.open_network is not None:
        backbone.forget_encoders()
        fetch_network(backbone)
        _add_lora(run, backbone)


def open_student(run: Run, backbone: Backbone, sharded: bool = False) -> Student:
    """The student the run describes, untrained; with the second time, fake weights or heads its objective needs."""
    objective, model, seed = open_objective(run), run.model, run.train.seed
    refuse_together(run, objective)
    if objective.needs_second_time:
        give_second_time(backbone, seed)
    if model.checkpointing:
        backbone.network.enable_gradient_checkpointing()
    if run.train.compile:
        for block in repeated_blocks(backbone.network):
            block.compile()
    if sharded:
        shard(backbone.network, backbone.device, run.train.offload)
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
    Where torchrun or accelerate started several processes, each calls this, and the first one writes and prints.

    Writes config.toml, metrics.jsonl, samples/ and checkpoints/ in the run's folder.
    Raises ValueError, before anything is written, for a plan that can't work; Stopped, with everything saved, where
    SIGINT or SIGTERM asked for it.
    """
    run = resolved(settle(run))
    with assembled() as team:
        team.by_first(lambda: check_run(run))
        team.by_first(lambda: check_memory(run, base_folder(run)))
        return _distill(run, team, console if team.first else Console(quiet=True), watch, corpus)


def _distill(
    run: Run, team: Team, console: Console, watch: Watch | None, corpus: Batches | None
) -> tuple[Trainer, float]:
    objective, folder = open_objective(run), Path(run.folder)
    sharded, pictures = run.train.parallel == "fsdp", objective.needs_pictures
    with_text, with_network = corpus is None and run.data.cache is None, corpus is not None or not encodes_first(run)
    with_network &= team.first or not sharded
    opened: list[Backbone] = []
    with within_memory(run, steps=False):
        with working("opening the model"):  # by all, or all stop
            team.by_each(lambda: opened.append(open_backbone(run, sharded, with_text, pictures, with_network)))
        [backbone] = opened
        if corpus is None:
            with listed_in(folder):
                corpus = encode(run.data, backbone, pictures, console, team)
        with working("making the student"):  # also opens the network, where it came after the encoders
            bring_network(run, backbone, corpus)
            student = open_student(run, backbone, sharded)
    warnings = _warn(
        console,
        imitated(backbone.precision, run.model.weights, backbone.device.type),
        unseen_shift(objective, backbone, corpus, run.train.seed),
        corpus.scarcity(run.train.samples) if isinstance(corpus, Corpus) else None,
    )
    if run.data.encode != "step":
        backbone.forget_encoders()
    trainer = Trainer(run, student, corpus, backbone.latent_shape(), team=team)
    _go_on(trainer, folder, console)
    team.by_first(lambda: check_room(run, checkpoint_bytes(trainer)))
    samples = run.train.batch * run.train.accumulate
    with ExitStack() as held:
        team.by_first(lambda: held.enter_context(alone(folder)))
        team.by_first(lambda: _write_config(run, folder))
        record = Record(folder if team.first else None, backbone.network, samples, warnings, objective.period)
        held.enter_context(closing(record))
        held.enter_context(within_memory(run))
        return trainer, _train_with_progress(trainer, folder, console, watch, record)


def _go_on(trainer: Trainer, folder: Path, console: Console) -> None:
    """Bring a trainer to the newest whole checkpoint of a run's folder, where there is one."""
    team, there = trainer.team, folder / "checkpoints"
    newest = team.by_first(lambda: checkpoint.find_latest(there, console.print))
    if newest is not None:
        trainer.restore(checkpoint.read(newest))
        team.by_each(lambda: trainer.corpus.restore(folder))
        console.print(f"going on from step {trainer.step}")
    elif checkpoint.checkpoints(there):
        console.print("no checkpoint is whole; beginning again at step 0")


def encode_run(run: Run, console: Console) -> dict[str, Any] | None:
    """Build a run's cache on its own; what was done, told by the first process. ValueError where there can be none."""
    if run.data.cache is None:
        raise ValueError('data.cache is missing: write data.cache = "FOLDER"; without one, training encodes in memory')
    check_folder(Path(run.data.cache), "data.cache =")
    if run.model.weights != "float32":  # the encoders of all others are those of bfloat16, and nothing is quantised
        run = run.model_copy(update={"model": run.model.model_copy(update={"weights": "bfloat16"})})
    pictures = open_objective(run).needs_pictures
    with assembled() as team:
        console = console if team.first else Console(quiet=True)
        with working("opening the model"):
            backbone = open_backbone(run, with_text=False, with_pictures=pictures, with_network=False)
        with listed_in(Path(run.data.cache)):
            told = encode_cache(run.data, backbone, pictures, console, team)
        return told if team.first else None


def _write_config(run: Run, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.toml", dump_run(run).encode())


def _warn(console: Console, *lines: str | None) -> list[str]:
    """Print and return the lines of warning that there are."""
    warnings = [line for line in lines if line is not None]
    for line in warnings:
        console.print(f"[yellow]warning:[/yellow] {line}", soft_wrap=True)
    return warnings


def unseen_shift(objective: Objective, backbone: Backbone, corpus: Batches, seed: int = 0) -> str | None:
    """A line of warning where the network can't see the shift that tells APEX's fake field apart."""
    if not isinstance(objective, Apex) or objective.fake_told != "shifted":
        return None
    prompts, c = corpus.examples(2)
    conditions = [c.select([row]) for row in range(len(prompts))]
    if len(set(prompts)) < 2:
        conditions[1:] = [corpus.null]
    plain = probe.Numbers(objective.shift_scale, objective.shift_bias, objective.shift_place)
    shift = open_shift(objective, backbone, seed) or plain
    return probe.warning(backbone, conditions, corpus.null, shift)


def _train_with_progress(
    trainer: Trainer, folder: Path, console: Console, watch: Watch | None, record: Record
) -> float:
    settings = trainer.run.train
    names = settings.track if trainer.team.first else ()
    tracked = closing(Trackers(names, trainer.run, folder, trainer.step, console.print))
    with noted_signals() as asked_to_stop, training_bar(console) as progress, tracked as trackers:
        task = progress.add_task("training", total=settings.steps, completed=trainer.step, speed="", losses="")
        preview = Preview(trainer, folder / "samples")
        evaluate = Checkup(trainer).take if settings.evaluate_every else dict
        if trainer.step == 0:
            preview.draw(0)
        record.begin()

        def on_step(step: int, logs: dict[str, Any]) -> None:
            record.end()
            if "not_finite" in logs:
                console.print(f"step {step - 1} skipped: {', '.join(logs['not_finite'])} not finite")
            terms = takewhile(lambda item: item[0] not in MEASURED, logs.items())
            shown = "  ".join(f"{name} {value:.3f}" for name, value in terms if isinstance(value, float))
            speed = progress.tasks[task].speed
            progress.update(task, completed=step, losses=shown, speed=f"{speed:.1f} it/s" if speed else "")
            trackers.log(step, logs)
            if is_due(step, settings.preview_every, settings.steps):
                preview.draw(step)
            if watch is not None:
                watch(trainer)
            record.begin()

        def checked() -> dict[str, float]:
            record.end()
            return evaluate()

        return train(trainer, folder, on_step, asked_to_stop, checked)


def read_run(folder: Path, which: str = "latest") -> tuple[Run, checkpoint.State]:
    """A run's configuration and its "latest" whole checkpoint, its "best", or that of a step.

    Raises ValueError for a folder that is no run or has no such checkpoint; a broken one passed over is told of.
    """
    if not (folder / "config.toml").is_file():
        raise ValueError(f"{folder} is no run's folder: it has no config.toml; make one with: apexgen demo")
    run = load_run(folder / "config.toml")
    broken: list[str] = []
    found = checkpoint.find(folder / "checkpoints", which, broken.append)
    if found is None and (lora := folder / LORA_FILE).is_file():
        raise ValueError(f"{folder} is an exported LoRA; write: apexgen sample {run.model.path} --lora {lora}")
    if found is None:
        why = f" ({broken[0].partition(';')[0]})" if broken else ""
        raise ValueError(f"{folder} has no whole checkpoint{why}; train it: apexgen train {folder / 'config.toml'}")
    sys.stderr.writelines(f"{line}\n" for line in broken)
    return run, checkpoint.read(found)


def open_trained(run: Run, saved: checkpoint.State) -> Student:
    """The student of a run with its saved weights. ValueError when they are not those of the run's pipeline."""
    student = open_student(run, open_backbone(run))
    student.load(saved.weights, saved.average, saved.kept)
    return student
