"""Checkpoints: one folder a step, complete or absent.

A folder is written under another name, synced, and renamed: whoever reads it sees all of it or none. One of the same
step steps aside first, so that at every moment one of the two is there; what is removed is renamed first. The manifest
lists the digest of every file, so that a damaged one is noticed and the one before it is used.

Of several processes the first writes. Sharded tensors are put together one by one, into files of at most PIECE bytes
with one at a time in memory, so the format is the same whoever wrote it, any number of processes opens it, and no
machine must hold the whole. (torch's distributed checkpoints would be written by all at once; but they are pickled in
part, and no other tool reads them.)
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial as bind
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from apexgen.files import sync, write_whole
from apexgen.parallel import ALONE, Team
from apexgen.shard import whole

MANIFEST = "manifest.json"
BEST = "best.json"  # beside the checkpoints: which of them was best, and how good
GROUPS = ("student", "average", "kept", "moments")  # of tensors, one file or several each
ALWAYS = ("student.safetensors", "average.safetensors", "optimizer.pt")  # what no checkpoint is without
TRAINING = ("optimizer", "step", "skipped", "skipped_in_a_row", "best")  # what optimizer.pt holds of a State
PIECE = 5_000_000_000  # bytes of a file of tensors, or of its only one
ASIDE = ".old"  # ends the name of a checkpoint while another of its step takes its place


@dataclass(frozen=True)
class State:
    """What a run needs to go on exactly where it was."""

    step: int
    weights: dict[str, Tensor]  # the student's trained tensors
    average: dict[str, Tensor]  # their moving average
    optimizer: dict[str, Any]  # torch.optim state_dict
    kept: dict[str, Tensor] = field(default_factory=dict)  # the student's snapshot, where its objective took one
    skipped: int = 0  # steps that were not finite, so far
    skipped_in_a_row: int = 0  # those of them just before `step`
    best: dict[str, Any] | None = None  # the best evaluation so far: its "step", "metric", "prompts" and "value"


def save(folder: Path, state: State, config: str, keep: int, team: Team = ALONE) -> Path:
    """Write folder/step-00000100 atomically, then remove all but the newest `keep` and the best one.

    Raises OSError (disk full, say) with nothing half-written and no older checkpoint removed. Every process of a team
    calls it; where the first can't write, the others raise Elsewhere.
    """
    target = folder / name_of(state.step)
    partial = folder / f".partial-{state.step:08d}"
    team.by_first(bind(_begin, partial))
    try:
        _write(partial, state, config, team)
        team.by_first(bind(_put_in_place, partial, target))
    except BaseException as error:
        if team.first:
            shutil.rmtree(partial, ignore_errors=True)
        if _disk_is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise
    team.by_first(bind(_keep, target, keep, state.best))
    return target


def _begin(partial: Path) -> None:
    for left in partial.parent.glob(".partial-*"):  # by a run that was killed while saving or removing
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)


def _keep(target: Path, keep: int, best: dict[str, Any] | None) -> None:
    """Name the best checkpoint, then remove the others that are no longer among the newest."""
    if best is None:
        (target.parent / BEST).unlink(missing_ok=True)
    else:
        write_whole(target.parent / BEST, (json.dumps(best) + "\n").encode())
    reached = [path for path in checkpoints(target.parent) if path.stem <= target.name]
    for old in reached[:-keep]:  # later ones are broken, else the run had gone on from them
        if best is None or old.stem != name_of(best["step"]):
            _remove(old)


def _write(folder: Path, state: State, config: str, team: Team) -> None:
    moments, rest = _part(state.optimizer)
    for group, tensors in zip(GROUPS, (state.weights, state.average, state.kept, moments), strict=True):
        for number, piece in enumerate(_pieces(tensors, team)):
            name = f"{group}.safetensors" if number == 0 else f"{group}-{number:05d}.safetensors"
            team.by_first(bind(save_file, piece, folder / name))
    training = {name: getattr(state, name) for name in TRAINING} | {"optimizer": rest}
    team.by_first(bind(_finish, folder, training, config))


def _pieces(tensors: dict[str, Tensor], team: Team) -> Iterator[dict[str, Tensor]]:
    """Whole tensors on the CPU, PIECE bytes at a time; only the first process keeps them."""
    piece: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if size and size + tensor.nbytes > PIECE:
            yield piece
            piece, size = {}, 0
        size += tensor.nbytes
        gathered = whole(tensor.detach())
        if team.first:
            piece[name] = gathered.cpu().contiguous()
    if tensors:
        yield piece


def _part(optimizer: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state_dict as its tensors, named INDEX.KEY, and what else there is."""
    tensors, others = {}, {}
    for index, values in optimizer.get("state", {}).items():
        tensors |= {f"{index}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
        others[index] = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
    return tensors, optimizer | ({"state": others} if others else {})


def _join(optimizer: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        optimizer["state"][int(index)][key] = tensor
    return optimizer


def _finish(folder: Path, training: dict[str, Any], config: str) -> None:
    with (folder / "optimizer.pt").open("wb") as file:
        torch.save(training, file)
    (folder / "config.toml").write_text(config)
    _write_manifest(folder)


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename a whole folder to its name; a checkpoint that has it is removed only then."""
    aside = target.with_name(target.name + ASIDE)
    if target.exists() and aside.exists():
        _remove(target if find_fault(target) else aside)
    if target.exists():
        target.rename(aside)
    partial.rename(target)
    sync(target.parent)
    if aside.exists():
        _remove(aside)


def _remove(path: Path) -> None:
    """Take a checkpoint away whole: a kill in the middle leaves nothing that looks like one."""
    hidden = path.with_name(f".partial-removed-{path.name}")
    path.rename(hidden)
    shutil.rmtree(hidden)


def name_of(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:08d}"


def find(folder: Path, which: str, report: Callable[[str], None]) -> Path | None:
    """Where a checkpoint is: the "latest" whole one, the "best", or that of a step; None where there is none at all.

    ValueError for one that was not kept or is broken, with those that there are.
    """
    if which == "latest" or not checkpoints(folder):
        return find_latest(folder, report)
    steps = [int(path.stem.removeprefix("step-")) for path in checkpoints(folder)]
    there = f"write --checkpoint latest, or one of {', '.join(map(str, steps))}"
    step = _read_best(folder, there) if which == "best" else which
    if not step.isdecimal() or int(step) not in steps:
        raise ValueError(f"--checkpoint {which}: there is none in {folder}; {there}")
    path = folder / name_of(int(step))
    if fault := find_fault(path):
        raise ValueError(f"--checkpoint {which}: {path} is broken ({fault}); {there}")
    return path


def _read_best(folder: Path, there: str) -> str:
    """The step of the best; ValueError, with what there is, where none is named or what names it is broken."""
    file = folder / BEST
    if not file.is_file():
        raise ValueError(f"--checkpoint best: {folder} has none, as train.keep_best was not set; {there}")
    try:
        return str(json.loads(file.read_text())["step"])
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"--checkpoint best: {file} is broken (it names no step); {there}") from None


def load_latest(folder: Path, report: Callable[[str], None]) -> State | None:
    """The newest checkpoint that is whole, or None; a damaged one is reported in a line and passed over."""
    path = find_latest(folder, report)
    return None if path is None else read(path)


def find_latest(folder: Path, report: Callable[[str], None]) -> Path | None:
    """Where the newest whole checkpoint is, or None; a damaged one is reported in a line and passed over."""
    for path in reversed(checkpoints(folder)):
        fault = find_fault(path)
        if fault is None:
            return path
        report(f"checkpoint {path.name} is broken ({fault}); passed over")
    return None


def load(path: Path) -> State:
    """Read one checkpoint folder. ValueError when it is broken."""
    fault = find_fault(path)
    if fault is not None:
        raise ValueError(f"checkpoint {path} is broken: {fault}")
    return read(path)


def read(path: Path) -> State:
    """A checkpoint whose files were found whole; its tensors stay on the disk until they are used.

    Raises ValueError, one line, where its weights are no safetensors file after all.
    """
    training = {"skipped": 0, "skipped_in_a_row": 0, "best": None}
    training |= torch.load(path / "optimizer.pt", weights_only=True)
    if training["best"] and not (path.parent / name_of(training["best"]["step"])).is_dir():
        training["best"] = None  # whoever removed it
    try:
        weights, average, kept, moments = (_tensors(path, group) for group in GROUPS)
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path} is broken: its weights are no safetensors file ({error})") from None
    training["optimizer"] = _join(training["optimizer"], moments)
    return State(weights=weights, average=average, kept=kept, **{name: training[name] for name in TRAINING})


def _tensors(path: Path, group: str) -> dict[str, Tensor]:
    files = sorted(path.glob(f"{group}*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first; of one step, the one that stepped aside first."""
    found = folder.glob("step-*") if folder.is_dir() else []
    return sorted(found, key=lambda path: (path.stem, path.suffix != ASIDE))


def find_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or not manifest:
        return f"no readable {MANIFEST}"
    unlisted = [name for name in ALWAYS if name not in manifest]
    if unlisted:
        return f"{MANIFEST} does not list {unlisted[0]}"
    for name, expected in manifest.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if _digest(path / name) != expected:
            return f"{name} has changed or was cut short"
    return None


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error: safetensors says so in words, torch hides it behind its own."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            return True
        error = error.__context__
    return False


def _write_manifest(folder: Path) -> None:
    files = sorted(folder.iterdir())
    (folder / MANIFEST).write_text(json.dumps({file.name: _digest(file) for file in files}, indent=1))
    for file in [*files, folder / MANIFEST, folder]:
        sync(file)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
