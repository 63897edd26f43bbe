"""A run that its device has no memory for is refused in one line, with the nearest run that it has.

Nearest is what changes least: the same step in smaller batches, activations computed again, sharded gradients cut at
every term, then other weights.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch

from apexgen.config import Run, validate
from apexgen.cost import memory_there
from apexgen.least import HELD, Outline, least_memory, read_outline
from apexgen.refuse import refuse_together
from apexgen.room import size
from apexgen.train import open_objective

TOLD = {
    "model": ("tune", "weights", "precision", "checkpointing"),
    "train": ("optimizer", "parallel", "reduce_gradients", "offload", "batch", "accumulate"),
}
PROCESSES = (2, 4, 8, 16, 32, 64)  # as many are proposed
NO_MEMORY = "can't allocate memory"  # what torch says on a processor, where it has no error of its own for it


@dataclass(frozen=True)
class Need:
    """What a run takes, in bytes, and what there is."""

    memory: int
    there: int
    activations: int = 0  # of the memory
    checkpointed: int | None = None  # they, computed again in the backward pass; None where that can't be


def check_memory(run: Run, folder: Path) -> None:
    """ValueError where the device can't even hold the weights and what trains, with the nearest run it can."""
    outline = read_outline(folder)
    need = Need(sum(least_memory(run, outline).values()), memory_there())
    if need.memory > need.there and not run.train.offload:  # then the parts are in two memories
        raise ValueError(
            f"weights, gradients and optimizer need {size(need.memory)} of memory and the device has "
            f"{size(need.there)}; {nearest(run, outline, need)}"
        )


@contextmanager
def within_memory(run: Run, steps: bool = True) -> Iterator[None]:
    """Inside, to run out of memory is a ValueError, one line, with the next smaller run.

    steps: whether smaller batches would help.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and NO_MEMORY not in str(error):
            raise
        what = f"a step with train.batch = {run.train.batch}" if steps else "opening the model"
        opened_alike = [] if steps else _by_term(run)  # no gradient is there yet
        held = [one for one in (*_lighter(run), *_shared(run)) if one not in opened_alike]
        ways = (changed for one in held for changed in (_steps(one) if steps else [one]))
        way = next((_words(run, one) for one in ways if one != run), "take a device with more")
        raise ValueError(f"{what} takes more memory than the device has, {size(memory_there())}; {way}") from error


def nearest(run: Run, outline: Outline, need: Need) -> str:
    """The nearest run whose memory there is, in words; beside one that trains other weights, one of more processes."""
    alone = _first_that_fits(run, outline, need, _lighter(run))
    shared = None
    if alone is None or alone.model.tune != run.model.tune:
        shared = _first_that_fits(run, outline, need, _shared(run))
    return ", or ".join(_words(run, one) for one in (shared, alone) if one) or "take a device with more"


def _first_that_fits(run: Run, outline: Outline, need: Need, ways: Iterable[Run]) -> Run | None:
    rest = need.memory - need.activations - sum(least_memory(run, outline).values())
    for way in ways:
        left = need.there - rest - sum(least_memory(way, outline).values())
        for changed in _steps(way):
            again = changed.model.checkpointing and not run.model.checkpointing
            held = need.checkpointed if again else need.activations
            if held is not None and held * changed.train.batch <= left * run.train.batch:
                return changed
    return None


def _lighter(run: Run) -> Iterator[Run]:
    """The run, and those whose weights take less and less, in as many processes."""
    yield from _by_term(run)
    if run.model.tune == "full":
        yield from _changed(run, {}, {"optimizer": "adamw8bit"})
    kinds = list(HELD)
    lighter = kinds if run.model.tune == "full" else kinds[kinds.index(run.model.weights) + 1 :]
    parallel = "ddp" if run.train.parallel == "fsdp" else run.train.parallel
    for weights in lighter:
        model = {"tune": "lora", "weights": weights} | ({} if weights == "float32" else {"precision": "auto"})
        yield from _changed(run, model, {"parallel": parallel, "reduce_gradients": "step", "offload": False})


def _shared(run: Run) -> Iterator[Run]:
    """The run with its weights shared by more and more processes, whose step is of the same samples if it can be."""
    now = run.train.processes or 1
    if run.model.tune == "lora":
        return
    for count in sorted({now, *PROCESSES}):
        if count > now or (count == now > 1 and run.train.parallel != "fsdp"):
            each, left = divmod(run.train.samples, count)
            batch = run.train.batch if left else _divisors(each, run.train.batch)[0]
            accumulate = run.train.accumulate if left else each // batch
            parallel = {"parallel": "fsdp", "processes": count, "optimizer": "adamw"}
            for shared in _changed(run, {}, parallel | {"batch": batch, "accumulate": accumulate}):
                yield from _by_term(shared)


def _by_term(run: Run) -> list[Run]:
    """The run, and where its weights are sharded, the one that holds no gradients whole."""
    return [run, *_changed(run, {}, {"reduce_gradients": "term"})]


def _steps(run: Run) -> Iterator[Run]:
    """The run, and those of the same step in smaller batches; then with activations computed again."""
    for again in (run, *_changed(run, {"checkpointing": True})):
        each = run.train.batch * run.train.accumulate
        for batch in _divisors(each, run.train.batch):
            yield from _changed(again, {}, {"batch": batch, "accumulate": each // batch})


def _divisors(number: int, most: int) -> list[int]:
    """Those up to `most`, the largest first."""
    small = [part for part in range(1, isqrt(number) + 1) if number % part == 0]
    return sorted({part for one in small for part in (one, number // one) if part <= most}, reverse=True)


def may_recompute(run: Run) -> bool:
    """Whether model.checkpointing is off and may be on."""
    return not run.model.checkpointing and bool(_changed(run, {"checkpointing": True}))


def _changed(run: Run, model: dict[str, Any], train: dict[str, Any] | None = None) -> list[Run]:
    """The run with other settings; none where they do not go together."""
    written = run.model_dump(mode="json", exclude_none=True)
    try:
        changed = validate(written | {"model": written["model"] | model, "train": written["train"] | (train or {})})
        refuse_together(changed, open_objective(changed))
    except ValueError:
        return []
    return [changed]


def _words(run: Run, changed: Run) -> str:
    """What is to be written for the one to become the other."""
    pairs = [
        (f"{table}.{key}", getattr(run, table), getattr(changed, table), key) for table in TOLD for key in TOLD[table]
    ]
    differs = {name: getattr(new, key) for name, old, new, key in pairs if getattr(new, key) != getattr(old, key)}
    words = "write " + " and ".join(f"{name} = {json.dumps(value)}" for name, value in differs.items())
    if (count := changed.train.processes) != run.train.processes:
        start = f"start {count} processes: torchrun --nproc-per-node {count} -m apexgen train ..."
        return f"{words} and {start}" if differs else start
    return words + (", a step of the same samples" if differs.keys() == {"train.batch", "train.accumulate"} else "")
