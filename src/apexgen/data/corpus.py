"""Encoded records in, batches out: which record comes at which step is a function of the seed alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apexgen.condition import Condition
from apexgen.objectives.base import Batch


def index_prompts(prompts: Sequence[str]) -> tuple[list[str], Tensor]:
    """The distinct prompts, sorted, and each prompt's row among them, (N,) int64."""
    distinct = sorted(set(prompts))
    place = {prompt: row for row, prompt in enumerate(distinct)}
    return distinct, torch.tensor([place[prompt] for prompt in prompts])


@dataclass(frozen=True)
class Corpus:
    """Encoded prompts, and pictures where there are some, held in memory.

    Several pictures may share a prompt, so conditions are kept once for each distinct prompt.
    """

    prompts: list[str]  # the distinct prompts
    conditions: Condition  # one row each
    rows: Tensor  # (N,) int64: each record's row of conditions
    null: Condition  # batch 1: the empty prompt
    latents: Tensor | None = None  # (N, C, H, W): each record's picture

    def __len__(self) -> int:
        return len(self.rows)

    def records(self, step: int, size: int, seed: int) -> Tensor:
        """The records of a step, (size,) int64: every one once an epoch, each epoch in another order.

        A pure function of its arguments, so resuming needs no saved position.
        """
        first, last = step * size, (step + 1) * size
        epochs = range(first // len(self), (last - 1) // len(self) + 1)
        order = torch.cat([self._order(epoch, seed) for epoch in epochs])
        return order[first - epochs[0] * len(self) :][:size]

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The batch of a step: its records, encoded."""
        chosen = self.records(step, size, seed)
        x = None if self.latents is None else self.latents[chosen]
        return Batch(c=self.conditions.select(self.rows[chosen]), null=self.null, x=x)

    def few(self, count: int) -> Tensor:
        """The rows of conditions of at most `count` records, evenly spread over all."""
        return self.rows[torch.linspace(0, len(self) - 1, min(count, len(self))).long()]

    def _order(self, epoch: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(len(self), generator=generator)
