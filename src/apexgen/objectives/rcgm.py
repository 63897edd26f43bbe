"""Recursive consistent velocities (RCGM), the any-step base of TwinFlow, https://arxiv.org/abs/2512.05150.

The mean velocity over [r, t] is one short step D of the flow and what the network itself says of the rest, in `order`
jumps of its average from t - D down to r:

    (t - r) u(x_t, t, r) = D v + sum_i (s_i - s_{i+1}) u(y_i, s_i, s_{i+1}),    y_1 = x_t - D v.

At order 1 and D -> 0 that is Mean Flows, by a finite difference.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

from apexgen import flow
from apexgen.objectives.base import Batch, Draw, Loss, Nets, clamped, robust
from apexgen.objectives.check import within
from apexgen.objectives.path import PathObjective, chosen, uniform_below


@dataclass(frozen=True)
class Rcgm(PathObjective):
    """Any number of steps; needs a network with a second time."""

    order: int = 2  # jumps to the target time
    difference: float = 0.01  # D
    one_share: float = 1 / 3  # of samples with (t, r) = (1, 0): one step
    many_share: float = 1 / 3  # of samples with r in [0.95 t, t]: many steps
    clamp: float = 1.0  # largest |target - u|
    floor: float = 1e-6  # of the robust loss, which acts like the error's norm

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "order", 1)
        within(self, "difference", 1e-4, 0.5)
        within(self, "one_share", 0, 1)
        within(self, "many_share", 0, 1 - self.one_share)
        within(self, "clamp", 1e-6)
        within(self, "floor", 1e-12)

    @property
    def needs_second_time(self) -> bool:
        return True

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        """t ~ U(0, 1), r ~ U(0, t); the kinds of sample by chance, so that any batch size does."""
        t = flow.uniform_times(shape[0], 0, 1, generator, ndim=len(shape))
        r = uniform_below(t, generator)
        near = t - 0.05 * uniform_below(t, generator)
        one = chosen(t, self.one_share, generator)
        many = chosen(t, self.many_share / max(1 - self.one_share, 1e-9), generator)
        r = torch.where(one, torch.zeros_like(t), torch.where(many, near, r))
        return Draw(noises=(flow.normal(shape, generator),), times=(torch.where(one, torch.ones_like(t), t), r))

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        (z,), (t, r) = draw.noises, draw.times
        x_t = self.start(batch, z, t)
        v = self.real_velocity(nets, batch, z, x_t, t, torch.maximum(t - self.difference, r))
        u = nets.student(x_t, t, r, batch.c)
        residual = self.residual(nets, batch, x_t, t, r, v, u.detach())
        goal = u.detach() + clamped(residual, self.clamp)
        yield Loss("rcgm", robust(u - goal, 0.5, self.floor, self.weight(t, r)))

    @torch.no_grad()
    def residual(self, nets: Nets, batch: Batch, x_t: Tensor, t: Tensor, r: Tensor, v: Tensor, u: Tensor) -> Tensor:
        """(D v + the average's jumps - (t - r) u) / D with D cut to t - r: v - u - (t - r) du/dt at order 1, D -> 0."""
        first = torch.maximum(t - self.difference, r)
        x = flow.step(x_t, v, t, first)
        knots = [first + (r - first) * (k / self.order) for k in range(self.order + 1)]
        for s, s_next in pairwise(knots):
            x = flow.step(x, nets.ema(x, s, s_next, batch.c), s, s_next)
        short = t - first
        whole = (x_t - x - (t - r) * u) / short.clamp(min=torch.finfo(t.dtype).tiny)
        return torch.where(short > 0, whole, v - u)

    def weight(self, t: Tensor, r: Tensor) -> Tensor:
        """1 + tan((1 - (t - r)) pi / 2.5), for each sample, (B,): 4.1 at r = t, 1 at one step."""
        return (1 + torch.tan((1 - (t - r)) * math.pi / 2.5)).flatten()
