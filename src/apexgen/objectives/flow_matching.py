"""Flow matching on the straight path (Lipman et al., 2022), https://arxiv.org/abs/2210.02747.

L = E |F(x_t, t, c) - (z - x)|^2    (Eq. 4 of https://arxiv.org/abs/2604.12322)
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Generator

from apexgen.flow import interpolate, logit_normal_times, normal, velocity
from apexgen.objectives.base import Batch, Draw, Loss, Nets, Objective, mean_square, pictures
from apexgen.objectives.check import within


@dataclass(frozen=True)
class FlowMatching(Objective):
    """The objective that trains the teacher; in one step it gives the conditional mean."""

    logit_mean: float = 0.0  # t = sigmoid(N(mean, deviation^2))
    logit_deviation: float = 1.0

    def __post_init__(self) -> None:
        within(self, "logit_deviation", 1e-6)

    @property
    def needs_pictures(self) -> bool:
        return True

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        t = logit_normal_times(shape[0], self.logit_mean, self.logit_deviation, generator, ndim=len(shape))
        return Draw(noises=(normal(shape, generator),), times=(t,))

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        x, (z,), (t,) = pictures(batch), draw.noises, draw.times
        x_t = interpolate(x, z, t)  # Eq. 1
        v = nets.student(x_t, t, t, batch.c)
        yield Loss("flow", mean_square(v, velocity(x, z)))  # Eq. 4
