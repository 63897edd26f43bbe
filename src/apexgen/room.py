"""Room for a run's checkpoints: how many there are at once, how large, and whether the disk has it."""

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from apexgen.checkpoint import checkpoints
from apexgen.config import Run
from apexgen.config.train import Train
from apexgen.objectives import Objective
from apexgen.train import Trainer

MOMENTS = {"adamw": 2.0, "adamw8bit": 0.5}  # bytes that the optimizer keeps, for each of the trained weights


def checkpoints_held(settings: Train) -> int:
    """The most checkpoints on disk at once: a new one is whole before the oldest, or the one that was best, goes."""
    saves = -(-settings.steps // settings.save_every)
    if settings.keep_best is not None:
        saves += -(-settings.steps // (settings.evaluate_every or settings.steps))
    return min(settings.keep + 1 + (settings.keep_best is not None), saves)


def checkpoint_bytes(trainer: Trainer) -> int:
    """The size of a checkpoint: trained weights, average, snapshot, and the optimizer's moments, if only to come."""
    student = trainer.student
    kept = student.kept
    if type(trainer.objective).takes_snapshot is not Objective.takes_snapshot:
        kept = kept or student.weights
    trained = _bytes(student.trained)
    optimizer = sum(value.nbytes for value in moments(trainer))
    to_come = int(MOMENTS[trainer.run.train.optimizer] * trained)
    return trained + _bytes(student.average) + _bytes(kept) + (optimizer or to_come)


def moments(trainer: Trainer) -> list[Tensor]:
    """The tensors that the optimizer keeps of the trained weights; none before the first step."""
    values = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return [value for value in values if isinstance(value, Tensor)]


def room_needed(run: Run, checkpoint: int) -> int:
    """The bytes that a run's checkpoints will take beside those there already, which they will replace."""
    return max(checkpoints_held(run.train) * checkpoint - _already_there(Path(run.folder)), 0)


def room_free(run: Run) -> int:
    """The bytes free on the disk of a run's folder, or of where it will be."""
    folder = Path(run.folder).absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def check_room(run: Run, checkpoint: int, free: int | None = None) -> None:
    """ValueError where the disk can't hold a run's checkpoints, with the nearest settings whose it can."""
    free = room_free(run) if free is None else free
    needed = room_needed(run, checkpoint)
    if needed <= free:
        return
    most = checkpoints_held(run.train) - -(-(needed - free) // checkpoint)
    raise ValueError(
        f"{run.folder} needs {size(needed)} for checkpoints and its disk has {size(free)} free; "
        + (_nearest(run.train, most) or f"write folder = on a disk with {size(needed)} free")
    )


def _nearest(settings: Train, most: int) -> str | None:
    """The settings nearest to these of which no more than `most` checkpoints are held, in words; None where none is."""
    best = settings.keep_best is not None
    ways: list[dict[str, Any]] = [
        {"keep": most - 1 - best},
        {"keep_best": None},
        {"keep_best": None, "keep": most - 1},
        {"keep_best": None, "save_every": settings.steps},
    ]
    for way in ways:
        changed = {key: value for key, value in way.items() if value != getattr(settings, key)}
        if way.get("keep", 1) >= 1 and checkpoints_held(settings.model_copy(update=changed)) <= most:
            return " and ".join(
                f"remove train.{key}" if value is None else f"write train.{key} = {value}"
                for key, value in changed.items()
            )
    return None


def size(count: int) -> str:
    """Bytes in the largest unit of a thousand that leaves at least 1."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:,.1f} {units[0]}"


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())  # of shards too, whose wholes are saved


def _already_there(folder: Path) -> int:
    return sum(file.stat().st_size for path in checkpoints(folder / "checkpoints") for file in path.iterdir())
