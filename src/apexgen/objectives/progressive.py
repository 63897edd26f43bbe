"""Progressive distillation (Salimans and Ho, 2022), https://arxiv.org/abs/2202.00512.

In stages: one step of the student from t to r = t - 1 / n must end where two steps of half the size end, made by what
the student was when the stage began (in the first stage by the teacher); then n is halved, down to one step. On the
straight path the target is the mean of the two velocities (their Algorithm 2).

Every time counts alike: their truncated SNR weight is max((1 - t)^2, t^2) in velocities, between 1/2 and 1 of that. The
learning rate falls once over the run, not once a stage.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator

from apexgen import flow
from apexgen.objectives.base import Batch, Draw, Loss, Nets, Objective, mean_square, pictures
from apexgen.objectives.check import within
from apexgen.objectives.path import on_grid, solve
from apexgen.velocities import guided


@dataclass(frozen=True)
class Progressive(Objective):
    """One step after 1 + halvings stages; stock networks do. Sampled by Euler on the last stage's grid."""

    halvings: int = 3  # the first stage's student makes 2^halvings steps, the last one's makes 1
    stage_steps: int = 500  # training steps of every stage but the last, which goes on to the end
    guidance: float = 1.0  # of the first stage's teacher; later ones have it inside

    def __post_init__(self) -> None:
        within(self, "halvings", 0, 16)
        within(self, "stage_steps", 1)
        within(self, "guidance", 1)

    @property
    def needs_pictures(self) -> bool:
        return True

    @property
    def least_steps(self) -> int:
        return self.halvings * self.stage_steps

    @property
    def first_steps(self) -> int:
        return self.stage_steps  # of the guided teacher

    def stage(self, step: int) -> int:
        """How often the student's steps have been halved before training step `step`."""
        return min(step // self.stage_steps, self.halvings)

    def takes_snapshot(self, step: int) -> bool:
        return step > 0 and self.stage(step) > self.stage(step - 1)

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        """A time in (0, 1], which `terms` raises to the grid of its stage."""
        t = flow.uniform_times(shape[0], 1, 0, generator, ndim=len(shape))
        return Draw(noises=(flow.normal(shape, generator),), times=(t,))

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        x, (z,), (t,), stage = pictures(batch), draw.noises, draw.times, self.stage(step)
        teacher = guided(nets.teacher, batch.null, self.guidance) if stage == 0 else nets.snapshot
        assert teacher is not None, "the trainer gives a snapshot where takes_snapshot"
        steps = 2 ** (self.halvings - stage)
        t = on_grid(t, steps)
        r = t - 1 / steps  # exact: steps is a power of two
        x_t = flow.interpolate(x, z, t)
        with torch.no_grad():
            target = (x_t - solve(teacher, x_t, t, r, batch.c, 2)) / (t - r)
        yield Loss("progressive", mean_square(nets.student(x_t, t, r, batch.c), target))
