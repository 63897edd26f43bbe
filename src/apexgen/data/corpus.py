"""Encoded records in, batches out: which record comes at which step is a function of the seed alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from apexgen.condition import Condition
from apexgen.data.order import Order
from apexgen.data.skipped import Skipped
from apexgen.files import write_whole
from apexgen.objectives.base import Batch

WHOLE = slice(None)
SOURCE = "source.json"  # in a run's folder


class Batches(Protocol):
    """What a training reads, wherever it is kept: a Corpus in memory or on disk, or encoded live at the step."""

    @property
    def null(self) -> Condition:
        """The empty prompt, batch 1."""

    @property
    def skipped(self) -> Skipped | None:
        """What the source left out; None where nothing was read from one."""

    def records(self, step: int, size: int, seed: int) -> Tensor:
        """The numbers of a step's records, (size,) int64."""

    def names(self, step: int, size: int, seed: int) -> list[str]:
        """The keys of a step's records, by which a bad one is found in its source."""

    def batch(self, step: int, size: int, seed: int, rows: slice = WHOLE) -> Batch:
        """The batch of a step, or some rows of it; the same whenever it is asked for, so that a run resumes exactly."""

    def examples(self, count: int) -> tuple[list[str], Condition]:
        """Up to `count` prompts from all over the records, with their conditions."""

    def save(self, folder: Path) -> None:
        """Write into a run's folder what was left out, and what spares a resumed run work."""

    def restore(self, folder: Path) -> None:
        """Go on with what `save` wrote there."""


@runtime_checkable
class Reading(Batches, Protocol):
    """Batches that are read from their source at the step, so that a record may turn out bad at any."""

    @property
    def skipped(self) -> Skipped:
        """What the source left out so far."""

    def look(self, step: int, size: int, seed: int, rows: slice = WHOLE) -> bool:
        """Read some rows of a step; whether all are good. Others replace the bad from then on."""


class Texts(Protocol):
    """Conditions by row; a Condition is one."""

    def select(self, rows: Tensor) -> Condition:
        """The conditions of some rows, by their places (n,)."""


class Latents(Protocol):
    """Latents by row, (B, C, h, w) of rows that share a size; a Tensor is one."""

    def __getitem__(self, rows: Tensor) -> Tensor: ...


def index_prompts(prompts: Sequence[str]) -> tuple[list[str], Tensor]:
    """The distinct prompts, sorted, and each prompt's row among them, (N,) int64."""
    distinct = sorted(set(prompts))
    place = {prompt: row for row, prompt in enumerate(distinct)}
    return distinct, torch.tensor([place[prompt] for prompt in prompts])


@dataclass(frozen=True)
class Corpus:
    """Encoded prompts, and pictures where there are some: columns that are in memory or read from disk at the step.

    Several pictures may share a prompt, so conditions are kept once for each distinct prompt.
    """

    prompts: Sequence[str]  # the distinct prompts
    conditions: Texts  # one row each
    rows: Tensor  # (N,) int64: each record's row of conditions; or (N, K) for up to K captions
    null: Condition  # batch 1: the empty prompt
    latents: Latents | None = None  # each record's picture; with flip, row N + i is record i mirrored
    weights: Tensor | None = None  # (N, K) how often each caption of a record is drawn, each row's sum 1
    buckets: Tensor | None = None  # (N,) int64: pictures of one bucket share a size; None: all do
    drop: float = 0.0  # share of captions that become the empty prompt
    flip: bool = False  # half of the pictures are mirrored
    skipped: Skipped | None = None  # what the source left out
    keys: Sequence[str] | None = None  # each record's, of its source; None: their numbers
    identity: str | None = None  # of these records in this order; None: not told

    def __len__(self) -> int:
        return len(self.rows)

    def records(self, step: int, size: int, seed: int) -> Tensor:
        """The records of a step, (size,) int64: every one once an epoch, each epoch in another order."""
        return self._order.records(step, size, seed)

    def names(self, step: int, size: int, seed: int) -> list[str]:
        """The keys of a step's records."""
        numbers = self.records(step, size, seed).tolist()
        return [str(number) if self.keys is None else self.keys[number] for number in numbers]

    def scarcity(self, size: int) -> str | None:
        """A warning of buckets with fewer records than a batch of so many takes; None where there are none."""
        scarce = [] if self.buckets is None else self._order.scarce(size)
        if not scarce:
            return None
        return (
            f"{len(scarce)} sizes of pictures have {sum(scarce):,} records in all, fewer each than a step's {size:,}: "
            "a batch of them holds some twice; a lesser data.aspect, or smaller steps, would not"
        )

    def batch(self, step: int, size: int, seed: int, rows: slice = WHOLE) -> Batch:
        """The batch of a step, or some rows of it: its records, encoded."""
        chosen = self.records(step, size, seed)[rows]
        caption, dropped, flipped = chances(step, size, seed)[:, rows]
        c = self.conditions.select(self._captions(chosen, caption))
        if self.drop:
            c = c.drop(dropped < self.drop, self.null)
        if self.latents is None:
            return Batch(c=c, null=self.null)
        return Batch(c=c, null=self.null, x=self.latents[chosen + len(self) * (flipped < 0.5) * self.flip])

    def examples(self, count: int) -> tuple[list[str], Condition]:
        """The first prompts of up to `count` records, evenly spread, with their conditions."""
        chosen = torch.linspace(0, len(self) - 1, min(count, len(self))).long()
        rows = self.rows[chosen] if self.rows.ndim == 1 else self.rows[chosen, 0]
        return [self.prompts[row] for row in rows.tolist()], self.conditions.select(rows)

    def save(self, folder: Path) -> None:
        """List what was left out in a run's folder, and note which records it is of."""
        if self.skipped is not None:
            self.skipped.write(folder)
        if self.identity is not None:
            write_whole(folder / SOURCE, json.dumps(self._told()).encode())

    def restore(self, folder: Path) -> None:
        """See to it that the records are those that the run began with. ValueError where they are others."""
        file = folder / SOURCE
        before = json.loads(file.read_text()) if file.is_file() else self._told()
        if self.identity is not None and before != self._told():
            raise ValueError(
                f"the source has {len(self):,} records that can be used and had {before['records']:,}, or not the "
                "same; put it back as it was, or begin in another folder"
            )

    def _told(self) -> dict[str, int | str | None]:
        return {"records": len(self), "identity": self.identity}

    @cached_property
    def _order(self) -> Order:
        return Order(torch.zeros(len(self), dtype=torch.int64) if self.buckets is None else self.buckets)

    def _captions(self, chosen: Tensor, chance: Tensor) -> Tensor:
        """The row of one caption for each record, drawn by weight."""
        if self.rows.ndim == 1 or self.weights is None:
            return self.rows[chosen]
        passed = (chance[:, None] >= self.weights[chosen].cumsum(1)).sum(1)
        last = (self.weights[chosen] > 0).sum(1) - 1  # a sum may round to less than 1
        return self.rows[chosen, passed.minimum(last)]


def chances(step: int, size: int, seed: int) -> Tensor:
    """What decides each sample's caption, whether it is dropped and whether it is mirrored: (3, size) in [0, 1)."""
    mixed = (seed * 1_000_003 + step) ^ 0x5DEECE66D  # unlike the generators of the order and of the trainer
    return torch.rand(3, size, generator=torch.Generator().manual_seed(mixed))
