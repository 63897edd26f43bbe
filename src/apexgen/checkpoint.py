"""Checkpoints: one folder a step, complete or absent.

A folder is written under another name, synced, and renamed: whoever reads it sees all of it or none. One of the same
step steps aside first, so that at every moment one of the two is there; what is removed is renamed first. The manifest
lists the digest of every file, so that a damaged one is noticed and the one before it is used.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from apexgen.files import sync

MANIFEST = "manifest.json"
ALWAYS = ("student.safetensors", "average.safetensors", "optimizer.pt")  # what no checkpoint is without
TRAINING = ("optimizer", "step", "skipped", "skipped_in_a_row")  # what optimizer.pt holds of a State
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


def save(folder: Path, state: State, config: str, keep: int) -> Path:
    """Write folder/step-00000100 atomically, then remove all but the newest `keep`.

    Raises OSError (disk full, say) with nothing half-written and no older checkpoint removed.
    """
    target = folder / f"step-{state.step:08d}"
    partial = folder / f".partial-{state.step:08d}"
    for left in folder.glob(".partial-*"):  # by a run that was killed while saving or removing
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(partial, state, config)
        _put_in_place(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if _disk_is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise
    reached = [path for path in checkpoints(folder) if path.stem <= target.name]
    for old in reached[:-keep]:  # later ones are broken, else the run had gone on from them
        _remove(old)
    return target


def _write(folder: Path, state: State, config: str) -> None:
    save_file(_contiguous(state.weights), folder / "student.safetensors")
    save_file(_contiguous(state.average), folder / "average.safetensors")
    if state.kept:
        save_file(_contiguous(state.kept), folder / "kept.safetensors")
    with (folder / "optimizer.pt").open("wb") as file:
        torch.save({name: getattr(state, name) for name in TRAINING}, file)
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


def load_latest(folder: Path, report: Callable[[str], None]) -> State | None:
    """The newest checkpoint that is whole, or None; a damaged one is reported in a line and passed over."""
    for path in reversed(checkpoints(folder)):
        fault = find_fault(path)
        if fault is None:
            return _read(path)
        report(f"checkpoint {path.name} is broken ({fault}); passed over")
    return None


def load(path: Path) -> State:
    """Read one checkpoint folder. ValueError when it is broken."""
    fault = find_fault(path)
    if fault is not None:
        raise ValueError(f"checkpoint {path} is broken: {fault}")
    return _read(path)


def _read(path: Path) -> State:
    training = {"skipped": 0, "skipped_in_a_row": 0} | torch.load(path / "optimizer.pt", weights_only=True)
    try:
        weights, average = load_file(path / "student.safetensors"), load_file(path / "average.safetensors")
        kept = load_file(path / "kept.safetensors") if (path / "kept.safetensors").is_file() else {}
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path} is broken: its weights are no safetensors file ({error})") from None
    return State(weights=weights, average=average, kept=kept, **{name: training[name] for name in TRAINING})


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


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _write_manifest(folder: Path) -> None:
    files = sorted(folder.iterdir())
    (folder / MANIFEST).write_text(json.dumps({file.name: _digest(file) for file in files}, indent=1))
    for file in [*files, folder / MANIFEST, folder]:
        sync(file)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
