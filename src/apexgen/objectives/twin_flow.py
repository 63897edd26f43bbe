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
from apexgen.objectives.base import Batch, Draw, Loss, Nets, clamped, of_share, robust, shares
from apexgen.objectives.check import one_of, within
from apexgen.objectives.rcgm import Rcgm
from apexgen.shift import scalar
from apexgen.velocities import Velocity


@dataclass(frozen=True)
class TwinFlow(Rcgm):
    """RCGM that corrects its one-step samples; needs a network with a second time."""

    told_by: Literal["time", "condition"] = "time"  # the fake flow at (-t, -t), or at (t, t) with -c
    fake_share: float = 0.25  # share of the batch that each of the two further terms sees
    fake_weight: float = 1.0
    rectify_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "told_by", ("time", "condition"))
        within(self, "fake_share", 1e-6, 1)
        within(self, "fake_weight", 0)
        within(self, "rectify_weight", 0)

    @property
    def term_shares(self) -> dict[str, float]:
        return {"fake_share": self.fake_share}

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        base = super().draw(shape, generator)
        # All independent: with one noise for sample and path, the fake flow's target would be the network's output.
        noises = tuple(flow.normal(shape, generator) for _ in range(4))
        times = tuple(flow.uniform_times(shape[0], 0, 1, generator, ndim=len(shape)) for _ in range(2))
        return Draw((*base.noises, *noises), (*base.times, *times), shares(shape[0], self.term_shares))

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        yield from super().terms(nets, batch, Draw(draw.noises[:1], draw.times[:2]), step)
        (_, w, z, w_again, z_again), (*_, t, s) = draw.noises, draw.times
        seen, student, c = draw.shares.get("fake_share"), nets.student, batch.c
        if self.fake_weight > 0:
            term = of_share(seen, lambda rows: self.fake_loss(student, w[rows], z[rows], t[rows], c.select(rows)))
            yield Loss("fake", self.fake_weight * term)
        if self.rectify_weight > 0:
            term = of_share(
                seen, lambda rows: self.rectify_loss(student, w_again[rows], z_again[rows], s[rows], c.select(rows))
            )
            yield Loss("rectify", self.rectify_weight * term)

    def fake_loss(self, student: Velocity, w: Tensor, z: Tensor, t: Tensor, c: Condition) -> Tensor:
        """How far the fake flow at times t (B, 1, ...) is from that of the samples of w (B, ...)."""
        with torch.no_grad():
            x_fake = flow.endpoint(w, student(w, torch.ones_like(t), torch.zeros_like(t), c), torch.ones_like(t))
        v_fake = self.fake(student, flow.interpolate(x_fake, z, t), t, c)
        return robust(v_fake - flow.velocity(x_fake, z), 0.5, self.floor)

    def rectify_loss(self, student: Velocity, w: Tensor, z: Tensor, t: Tensor, c: Condition) -> Tensor:
        """What moves the samples of w (B, ...) by how the fake flow differs from the real one at times t."""
        F_w = student(w, torch.ones_like(t), torch.zeros_like(t), c)
        with torch.no_grad():
            x_t = flow.interpolate(flow.endpoint(w, F_w, torch.ones_like(t)), z, t)
            gap = self.fake(student, x_t, t, c) - student(x_t, t, t, c)
        return robust(F_w - (F_w.detach() - clamped(gap, self.clamp)), 0.5, self.floor)

    def fake(self, network: Velocity, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        """The velocity of the network's own samples, at x (B, ...)."""
        return network(x, -t, -t, c) if self.told_by == "time" else network(x, t, t, c.shift(scalar(-1, 0)))
