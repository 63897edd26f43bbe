"""Consistency trajectory models (Kim et al., 2023), https://arxiv.org/abs/2310.02279.

G(x_t, t, s) = x_t - (t - s) u(x_t, t, s) jumps from t to any s. Jumping in one go must equal solving from t to an
inner time first and jumping from there (their Eq. 9); at s = t the jump is held by flow matching (their Eq. 10).
Compared at s, where the paper carries both on to 0 through one more network; no discriminator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from apexgen import flow
from apexgen.objectives.base import Batch, Draw, Loss, Nets, mean_square, robust
from apexgen.objectives.check import robust_fields, within
from apexgen.objectives.path import LogitNormalPath, solve, uniform_below


@dataclass(frozen=True)
class Ctm(LogitNormalPath):
    """Jumps from any time to any other; needs a network with a second time."""

    solver_steps: int = 1  # Euler steps from t to the inner time
    flow_weight: float = 1.0
    power: float = 0.5  # of the jump's loss; 0 is the square
    floor: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "solver_steps", 1)
        within(self, "flow_weight", 0)
        robust_fields(self)

    @property
    def needs_second_time(self) -> bool:
        return True

    def second_times(self, t: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        s = uniform_below(t, generator)
        return s + uniform_below(t - s, generator), s

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        (z,), (t, inner, s) = draw.noises, draw.times
        x_t = self.start(batch, z, t)
        with torch.no_grad():
            x = solve(
                lambda x, t, r, c: self.real_velocity(nets, batch, z, x, t, r),
                x_t, t, inner, batch.c, self.solver_steps,
            )  # fmt: skip
            goal = flow.step(x, nets.ema(x, inner, s, batch.c), inner, s)
        jump = flow.step(x_t, nets.student(x_t, t, s, batch.c), t, s)
        yield Loss("jump", robust((jump - goal) / (t - s).clamp(min=1e-4), self.power, self.floor))

        if self.flow_weight > 0:
            v = self.real_velocity(nets, batch, z, x_t, t, t)
            yield Loss("flow", self.flow_weight * mean_square(nets.student(x_t, t, t, batch.c), v))
