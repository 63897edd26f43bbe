"""Mean Flows (Geng et al., 2025), https://arxiv.org/abs/2505.13447.

The network learns u(x_t, t, r) = 1 / (t - r) int_r^t v ds, which obeys u = v - (t - r) du/dt (Eq. 6), the derivative
taken along the flow at fixed r (Eq. 8). At r = t that is flow matching.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from apexgen.objectives.base import Batch, Draw, Loss, Nets, robust
from apexgen.objectives.check import robust_fields, within
from apexgen.objectives.path import LogitNormalPath, chosen, uniform_below
from apexgen.velocities import along_flow


@dataclass(frozen=True)
class MeanFlow(LogitNormalPath):
    """One step by the mean velocity; needs a network with a second time."""

    logit_mean: float = -0.4
    equal_share: float = 0.75  # of samples with r = t
    power: float = 1.0  # p of Eq. 22
    floor: float = 1e-3  # c of Eq. 22
    difference: float = 0.0  # half width of a finite difference, 1e-4 say; 0 is forward mode

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "equal_share", 0, 1)
        robust_fields(self)
        within(self, "difference", 0, 0.1)

    @property
    def needs_second_time(self) -> bool:
        return True

    @property
    def derivative_step(self) -> float:
        return self.difference

    def second_times(self, t: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        equal = chosen(t, self.equal_share, generator)
        return (torch.where(equal, t, uniform_below(t, generator)),)

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        (z,), (t, r) = draw.noises, draw.times
        x_t = self.start(batch, z, t)
        v = self.real_velocity(nets, batch, z, x_t, t, t)
        u, slope = along_flow(nets.student, x_t, t, r, batch.c, v, self.difference)  # Eq. 8
        target = v - (t - r) * slope  # Eq. 10, under sg
        yield Loss("mean_flow", robust(u - target, self.power, self.floor))  # Eq. 9 with Eq. 22
