"""Flow matching on the straight path (Lipman et al., 2022), https://arxiv.org/abs/2210.02747.

L = E |F(x_t, t, c) - (z - x)|^2    (Eq. 4 of https://arxiv.org/abs/2604.12322)
"""

from collections.abc import Iterator
from dataclasses import dataclass

from apexgen.flow import interpolate, velocity
from apexgen.objectives.base import Batch, Draw, Loss, Nets, mean_square, pictures
from apexgen.objectives.path import LogitNormal


@dataclass(frozen=True)
class FlowMatching(LogitNormal):
    """The objective that trains the teacher; in one step it gives the conditional mean."""

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        x, (z,), (t,) = pictures(batch), draw.noises, draw.times
        x_t = interpolate(x, z, t)  # Eq. 1
        v = nets.student(x_t, t, t, batch.c)
        yield Loss("flow", mean_square(v, velocity(x, z)))  # Eq. 4
