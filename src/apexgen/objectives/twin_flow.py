"""TwinFlow (Cheng et al., 2025), https://arxiv.org/abs/2512.05150, as released for large models.

RCGM, and a second trajectory in the same network, told by a negative time or by a shifted condition: it learns the
flow of the network's own one-step samples ("fake"). The difference of the two flows at noised samples corrects the
one-step velocity ("rectify"): the gradient of KL(fake | real), without its factor t.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from apexgen import flow
from apexgen.condition import Condition
from apexgen.objectives.base import Batch, Draw, Loss, Nets, clamped, robust
from apexgen.objectives.check import one_of, within
from apexgen.objectives.rcgm import Rcgm
from apexgen.shift import scalar
from apexgen.velocities import Velocity


@dataclass(frozen=True)
class TwinFlow(Rcgm):
    """RCGM that corrects its one-step samples; needs a network with a second time."""

    told_by: Literal["time", "condition"] = "time"  # the fake flow at (-t, -t), or at (t, t) with -c
    fake_share: float = 0.25  # of the batch in each of the two further terms, at least one sample
    fake_weight: float = 1.0
    rectify_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "told_by", ("time", "condition"))
        within(self, "fake_share", 0, 1)
        within(self, "fake_weight", 0)
        within(self, "rectify_weight", 0)

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        base = super().draw(shape, generator)
        # All independent: with one noise for sample and path, the fake flow's target would be the network's output.
        noises = tuple(flow.normal(shape, generator) for _ in range(4))
        times = tuple(flow.uniform_times(shape[0], 0, 1, generator, ndim=len(shape)) for _ in range(2))
        return Draw(noises=(*base.noises, *noises), times=(*base.times, *times))

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        yield from super().terms(nets, batch, Draw(draw.noises[:1], draw.times[:2]), step)
        few = slice(max(1, round(self.fake_share * len(draw.times[0]))))
        c = batch.c.select(few)
        w, z, w_again, z_again = (noise[few] for noise in draw.noises[1:])
        t, s = (time[few] for time in draw.times[2:])
        one, zero = torch.ones_like(t), torch.zeros_like(t)

        with torch.no_grad():
            x_fake = flow.endpoint(w, nets.student(w, one, zero, c), one)
        v_fake = self.fake(nets.student, flow.interpolate(x_fake, z, t), t, c)
        yield Loss("fake", self.fake_weight * robust(v_fake - flow.velocity(x_fake, z), 0.5, self.floor))

        F_w = nets.student(w_again, one, zero, c)
        with torch.no_grad():
            x_s = flow.interpolate(flow.endpoint(w_again, F_w, one), z_again, s)
            gap = self.fake(nets.student, x_s, s, c) - nets.student(x_s, s, s, c)
        goal = F_w.detach() - clamped(gap, self.clamp)
        yield Loss("rectify", self.rectify_weight * robust(F_w - goal, 0.5, self.floor), {"gap": gap.abs().mean()})

    def fake(self, network: Velocity, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        """The velocity of the network's own samples, at x (B, ...)."""
        return network(x, -t, -t, c) if self.told_by == "time" else network(x, t, t, c.shift(scalar(-1, 0)))
