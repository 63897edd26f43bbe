"""Consistency models: f(x_t, t) = x_t - (t - e) F is the same point along a trajectory down to the edge e.

Song et al., https://arxiv.org/abs/2303.01469 (discrete); Geng et al., https://arxiv.org/abs/2406.14548 (ECT: the step
shrinks by halves, loss weight 1 / (t - s), no average); Lu and Song, https://arxiv.org/abs/2410.11081 (sCM: the limit
of no step, with a normalised tangent that is warmed up); Wang et al., https://arxiv.org/abs/2405.18407 (PCM: the
trajectory cut into phases, e the lower end of the one t is in). Stock networks do: r = e is a function of t.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from apexgen import flow
from apexgen.objectives.base import Batch, Draw, Loss, Nets, mean_square, robust
from apexgen.objectives.check import one_of, robust_fields, unused, within
from apexgen.objectives.path import LogitNormalPath
from apexgen.velocities import along_flow

ONLY_DISCRETE = ("stage_steps", "stages", "power", "floor")
ONLY_CONTINUOUS = ("tangent_warmup", "tangent_floor", "difference")


@dataclass(frozen=True)
class Consistency(LogitNormalPath):
    """One step, or as many as there are phases; sampled by `renoise`, or by Euler on the phases' edges."""

    form: Literal["discrete", "continuous"] = "discrete"
    phases: int = 1
    stage_steps: int = 100  # training steps after which the step down from t is halved
    stages: int = 8  # the last one's step is (t - e) / 2^8
    power: float = 0.5  # of the loss; 0 is the square, 1/2 a pseudo-Huber
    floor: float = 1e-6
    tangent_warmup: int = 300  # steps in which the derivative's share rises to 1
    tangent_floor: float = 0.1  # c in g / (|g| + c)
    difference: float = 0.0  # half width of a finite difference, 1e-4 say; 0 is forward mode

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "form", ("discrete", "continuous"))
        unused(self, ONLY_CONTINUOUS if self.form == "discrete" else ONLY_DISCRETE, f'form = "{self.form}"')
        for name in ("phases", "stage_steps", "stages", "tangent_warmup"):
            within(self, name, 1)
        robust_fields(self)
        within(self, "tangent_floor", 1e-12)
        within(self, "difference", 0, 0.1)

    @property
    def derivative_step(self) -> float | None:
        return self.difference if self.form == "continuous" else None

    @property
    def renoises(self) -> bool:
        return self.phases == 1

    def edge(self, t: Tensor) -> Tensor:
        """The lower end of the phase that t (B, 1, ...) in (0, 1] is in; a time on an edge belongs below it."""
        return ((t * self.phases).ceil() - 1).clamp(min=0) / self.phases

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        return (self._discrete if self.form == "discrete" else self._continuous)(nets, batch, draw, step)

    def _discrete(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        (z,), (t,) = draw.noises, draw.times
        x_t, e = self.start(batch, z, t), self.edge(t)
        short = (t - e) * 0.5 ** min(1 + step // self.stage_steps, self.stages)  # ECT with n(t) = 1
        s = t - short  # just above an edge that is t itself in float32, and the error zero: `short` divides, t - s not
        x_s = flow.step(x_t, self.real_velocity(nets, batch, z, x_t, t, s), t, s)
        with torch.no_grad():
            goal = flow.step(x_s, nets.student(x_s, s, e, batch.c), s, e)
        f = flow.step(x_t, nets.student(x_t, t, e, batch.c), t, e)
        yield Loss("consistency", robust(f - goal, self.power, self.floor, 1 / short.flatten()))

    def _continuous(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        (z,), (t,) = draw.noises, draw.times
        x_t, e = self.start(batch, z, t), self.edge(t)
        v = self.real_velocity(nets, batch, z, x_t, t, t)
        F, slope = along_flow(nets.student, x_t, t, e, batch.c, v, self.difference)
        share = min(1.0, step / self.tangent_warmup)
        g = v - F.detach() - share * (t - e) * slope  # df/dt, the tangent of sCM's Eq. 6
        size = g.square().flatten(1).mean(1).sqrt().view(t.shape)
        yield Loss(
            "consistency", mean_square(F, F.detach() + g / (size + self.tangent_floor)), {"tangent": size.mean()}
        )
