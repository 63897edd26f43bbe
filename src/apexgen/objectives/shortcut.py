"""Shortcut models (Frans et al., 2024), https://arxiv.org/abs/2410.12557.

A step of length 2 d must equal two steps of length d, the second from where the first ended (their Eq. 4); at d = 0
the step is flow matching (their Eq. 5). Lengths are powers of two.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from apexgen import flow
from apexgen.objectives.base import Batch, Draw, Loss, Nets, mean_square, of_share, shares
from apexgen.objectives.check import within
from apexgen.objectives.path import LogitNormalPath


@dataclass(frozen=True)
class Shortcut(LogitNormalPath):
    """1, 2, 4 ... steps by bootstrapping; needs a network with a second time."""

    finest: int = 7  # the shortest d is 2^-7
    bootstrap_share: float = 0.25  # share of the batch that learns long steps

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "finest", 1, 16)
        within(self, "bootstrap_share", 1e-6, 1)

    @property
    def needs_second_time(self) -> bool:
        return True

    @property
    def term_shares(self) -> dict[str, float]:
        return {"bootstrap_share": self.bootstrap_share}

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        base = super().draw(shape, generator)
        return Draw(base.noises, base.times, shares(shape[0], self.term_shares))

    def second_times(self, t: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        """A start (B, 1, ...) on the grid of its length's multiples, and the end of two short steps from there."""
        level = torch.randint(0, self.finest, t.shape, generator=generator, device=generator.device)
        start = torch.randint(0, 2**self.finest, t.shape, generator=generator, device=generator.device)
        start = start % 2**level + 1  # 1 ... 2^level, in units of the long step 2^-level
        return (start * 0.5**level, (start - 1) * 0.5**level)

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        (z,), (t, start, end) = draw.noises, draw.times
        x_t = self.start(batch, z, t)
        v = self.real_velocity(nets, batch, z, x_t, t, t)
        yield Loss("flow", mean_square(nets.student(x_t, t, t, batch.c), v))  # Eq. 5

        def long(rows: Tensor | slice) -> Tensor:
            x, t, r, c = self.start(batch, z, start)[rows], start[rows], end[rows], batch.c.select(rows)
            middle = (t + r) / 2
            with torch.no_grad():
                first = nets.ema(x, t, middle, c)
                second = nets.ema(flow.step(x, first, t, middle), middle, r, c)
            return mean_square(nets.student(x, t, r, c), (first + second) / 2)  # Eq. 4

        yield Loss("shortcut", of_share(draw.shares.get("bootstrap_share"), long))
