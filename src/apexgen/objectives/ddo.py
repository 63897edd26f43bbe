"""Direct discriminative optimization (Zheng et al., 2025), https://arxiv.org/abs/2503.01103.

A GAN whose discriminator is the student itself: sigma(beta log p / p_ref), its likelihood against that of a frozen
reference. Real pictures must score high in it, the reference's own samples low:

    L = -E_data log sigma(beta log p / p_ref) - alpha E_ref log sigma(-beta log p / p_ref).

For a flow, log p / p_ref is what the reference's error in flow matching has over the student's, up to a weight in t
that is 1 here; one noise and time stand for their mean, which bounds L from above, for -log sigma is convex.

It refines the velocity, and with it every number of steps that has sufficed before. A one-step generator it is not: at
t = 1 the best velocity still leads to the conditional mean. Meant to follow another objective, or to sharpen a teacher.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from apexgen.condition import Condition
from apexgen.flow import interpolate, normal, velocity
from apexgen.objectives.base import Batch, Draw, Loss, Nets, pictures
from apexgen.objectives.check import unused, within
from apexgen.objectives.path import LogitNormal, solve
from apexgen.velocities import Velocity


@dataclass(frozen=True)
class Ddo(LogitNormal):
    """A sharper velocity from pictures and the reference's samples; stock networks do."""

    alpha: float = 1.0  # weight of the reference's samples
    beta: float = 1.0  # of the log ratio, whose errors are means over a sample's elements
    solver_steps: int = 8  # Euler steps that draw a sample of the reference, without guidance: p_ref is what it draws
    round_steps: int = 0  # training steps after which the student becomes the reference; 0: the teacher stays it

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "alpha", 0)
        within(self, "beta", 1e-6)
        within(self, "solver_steps", 1)
        if self.alpha == 0:
            unused(self, ("solver_steps",), "alpha = 0")
        within(self, "round_steps", 0)

    def takes_snapshot(self, step: int) -> bool:
        return self.round_steps > 0 and step > 0 and step % self.round_steps == 0

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        base = super().draw(shape, generator)
        return Draw(noises=(*base.noises, normal(shape, generator)), times=base.times)

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        x, (z, w), (t,), c = pictures(batch), draw.noises, draw.times, batch.c
        reference = nets.snapshot if 0 < self.round_steps <= step else nets.teacher
        assert reference is not None, "the trainer gives a snapshot where takes_snapshot"
        ratio = self.log_ratio(nets.student, reference, x, z, t, c)
        yield Loss("real", -logsigmoid(self.beta * ratio).mean(), {"real_ratio": ratio.detach().mean()})
        if self.alpha > 0:
            one, zero = torch.ones_like(t), torch.zeros_like(t)
            with torch.no_grad():
                x_ref = solve(reference, w, one, zero, c, self.solver_steps)
            ratio = self.log_ratio(nets.student, reference, x_ref, z, t, c)
            log = {"reference_ratio": ratio.detach().mean()}
            yield Loss("reference", -self.alpha * logsigmoid(-self.beta * ratio).mean(), log)

    def log_ratio(
        self, student: Velocity, reference: Velocity, x: Tensor, z: Tensor, t: Tensor, c: Condition
    ) -> Tensor:
        """(B,): how much better the student's velocity explains each x than the reference's does."""
        x_t, v = interpolate(x, z, t), velocity(x, z)
        with torch.no_grad():
            theirs = reference(x_t, t, t, c)
        mine = student(x_t, t, t, c)
        return ((theirs - v).square() - (mine - v).square()).flatten(1).mean(1)
