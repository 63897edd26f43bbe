"""Room for a run's checkpoints and its cache: how many there are at once, how large, and whether the disk has it."""

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.checkpoint import checkpoints
from apexgen.config import Run
from apexgen.config.train import Train
from apexgen.data.corpus import Batches, Corpus
from apexgen.encode.start import store_folders
from apexgen.encode.store import shards_in
from apexgen.encode.table import StoredLatents, StoredTexts, key
from apexgen.objectives import Objective
from apexgen.train import Trainer

MOMENTS = {"adamw": 2.0, "adamw8bit": 0.5}  # bytes that the optimizer keeps, for each of the trained weights

HALVES = {"float32": 1, "bfloat16": 2}  # what a cache divides numbers by
ENTRY = 115  # bytes that its files say of a tensor


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
    return shutil.disk_usage(_disk(run.folder)).free


def encoded_bytes(run: Run, few: Batches, records: int) -> int:
    """What the texts and pictures of all records take once they are encoded, by those of a few; 0 for none kept."""
    if not isinstance(few, Corpus):
        return 0
    stored = [one for one in (few.conditions, few.latents) if isinstance(one, StoredTexts | StoredLatents)]
    entries = [one.store[key(one.keys, row)] for one in stored for row in range(len(one.keys))]
    tensors = [tensor for entry in entries for tensor in entry.values()]
    numbers = sum(tensor.nbytes for tensor in tensors if tensor.is_floating_point())
    others = sum(tensor.nbytes for tensor in tensors) - numbers
    all_of_few = numbers // HALVES[run.data.cache_dtype] + others
    return (all_of_few + (ENTRY * len(tensors) if run.data.cache else 0)) * records // len(few)


def cached_bytes(run: Run, backbone: Backbone, pictures: bool) -> int:
    """The size of what a run's cache has of its own models, whole."""
    if run.data.cache is None or not Path(run.data.cache).is_dir():
        return 0
    folders = store_folders(run.data, backbone, pictures)
    return sum(file.stat().st_size for folder in folders for file in shards_in(folder))


def check_cache(run: Run, needed: int) -> int:
    """What of a cache's bytes to come is on the disk of the checkpoints; ValueError where its disk can't hold them."""
    if run.data.cache is None:
        return 0
    disk = _disk(run.data.cache)
    free = shutil.disk_usage(disk).free
    if needed > free:
        half = run.data.cache_dtype == "float32" and needed // 2 <= free
        raise ValueError(
            f"{run.data.cache} needs {size(needed)} for what is encoded and its disk has {size(free)} free; write "
            + ('data.cache_dtype = "bfloat16"' if half else 'data.cache = on a larger disk, or data.encode = "step"')
        )
    return needed if disk.stat().st_dev == _disk(run.folder).stat().st_dev else 0


def _disk(folder: str) -> Path:
    """The nearest folder that there is already."""
    path = Path(folder).absolute()
    return next(one for one in (path, *path.parents) if one.exists())


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
