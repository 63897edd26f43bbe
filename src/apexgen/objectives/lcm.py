"""Latent consistency distillation (Luo et al., 2023), https://arxiv.org/abs/2310.04378.

One step of the guided teacher leads from t to s = t - 1 / grid, where the average says what the student must say at t
(Eq. 17, their skipping-step; the guidance is fixed, as in LCM-LoRA, https://arxiv.org/abs/2311.05556).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator

from apexgen import flow
from apexgen.objectives.base import Batch, Draw, Loss, Nets, robust
from apexgen.objectives.check import one_of, within
from apexgen.objectives.path import PathObjective


@dataclass(frozen=True)
class Lcm(PathObjective):
    """Consistency over one solver step; stock networks do. Sampled by `renoise`."""

    guidance: float = 3.0
    grid: int = 50  # solver steps from noise to data
    huber: float = 1e-3  # below it the loss is a square, above it a norm

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "real", ("teacher",))
        within(self, "grid", 1)
        within(self, "huber", 1e-6)

    @property
    def renoises(self) -> bool:
        return True

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        column = (shape[0], *[1] * (len(shape) - 1))
        t = torch.randint(1, self.grid + 1, column, generator=generator, device=generator.device) / self.grid
        return Draw(noises=(flow.normal(shape, generator),), times=(t,))

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        (z,), (t,) = draw.noises, draw.times
        s, zero = (t - 1 / self.grid).clamp(min=0), torch.zeros_like(t)
        x_t = self.start(batch, z, t)
        x_s = flow.step(x_t, self.real_velocity(nets, batch, z, x_t, t, s), t, s)
        with torch.no_grad():
            goal = flow.endpoint(x_s, nets.ema(x_s, s, zero, batch.c), s)
        f = flow.endpoint(x_t, nets.student(x_t, t, zero, batch.c), t)
        yield Loss("consistency", robust(f - goal, 0.5, self.huber**2))
