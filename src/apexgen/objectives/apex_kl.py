"""APEX on the generated path: Eq. 12 and 13 of https://arxiv.org/abs/2604.12322.

By Eq. 38 the gradient of KL(fake | real) through the generator G(w) = w - F(w, 1, c) is, in
velocities and with the weight one at every t,

    d KL / d F(w, 1, c)  ~  v_fake(x_t, t, c_fake) - v_real(x_t, t, c),
    x_t = (1 - t) x_fake + t z,    x_fake = sg G(w),    w and z independent.

v_fake - v_real = (E_real[x | x_t] - E_fake[x | x_t]) / t, so descent moves G(w) toward the real mean.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from apexgen.condition import Condition
from apexgen.flow import endpoint, interpolate, velocity
from apexgen.objectives.base import Draw, Loss, clamped, mean_square, of_share
from apexgen.objectives.check import unused, within
from apexgen.objectives.pairs import Paired
from apexgen.velocities import Velocity


@dataclass(frozen=True)
class KlForm(Paired):
    """What the KL form is told, and its terms."""

    fake_weight: float = 1.0  # lambda_p of Eq. 25; at 0 nothing learns the fake field: a control only
    warmup: int = 150  # first steps without the KL term, while the fake field is learnt
    kl_weight: float = 1.0
    anchor_weight: float = 1.0  # at 0 nothing holds the shared weights: a control only
    anchor_share: float = 1.0  # share of the batch that the anchor sees; the field is held by few
    clamp: float = 1.0  # largest |v_fake - v_real| that moves a sample
    redraw: bool = True  # one more forward, for the peak memory of flow matching; False: twice that memory

    def __post_init__(self) -> None:
        for name in ("fake_weight", "warmup", "kl_weight", "anchor_weight"):
            within(self, name, 0)
        within(self, "anchor_share", 1e-6, 1)
        within(self, "clamp", 1e-6)
        for weight, name in (("anchor_weight", "anchor_share"), ("kl_weight", "clamp")):
            if getattr(self, weight) == 0:
                unused(self, (name,), f"{weight} = 0")
        super().__post_init__()

    @property
    def term_shares(self) -> dict[str, float]:
        return ({"anchor_share": self.anchor_share} if self.anchor_weight else {}) | super().term_shares

    def kl_terms(
        self,
        student: Velocity,
        real: Velocity,
        c: Condition,
        c_fake: Condition,
        x: Tensor | None,
        draw: Draw,
        step: int,
    ) -> Iterator[Loss]:
        """The terms fake, anchor, pairs and kl; the anchor is on the pictures x (B, ...), or on `real` without."""
        (w, z), (t,) = draw.noises, draw.times
        one, zero = torch.ones_like(t), torch.zeros_like(t)
        generates = self.kl_weight > 0 and step >= self.warmup

        with nullcontext() if generates and not self.redraw else torch.no_grad():
            F_w = student(w, one, zero, c)
        x_fake = endpoint(w, F_w.detach(), one)  # Eq. 11 at t = 1
        x_t = interpolate(x_fake, z, t)  # Eq. 1, on the generated path

        with nullcontext() if self.fake_weight > 0 else torch.no_grad():
            v_fake = student(x_t, t, t, c_fake)
        if self.fake_weight > 0:
            yield Loss("fake", self.fake_weight * mean_square(v_fake, velocity(x_fake, z)))  # Eq. 12
        v_fake = v_fake.detach()  # only its value serves below
        with torch.no_grad():
            v_real = real(x_t, t, t, c)
        gap = v_fake - v_real  # Eq. 13 in velocities, by Eq. 38
        logs = {"gap": gap.abs().mean()}

        x_held, target = (x_t, v_real) if x is None else (interpolate(x, z, t), velocity(x, z))  # Eq. 4
        if self.anchor_weight > 0:
            yield Loss("anchor", self.anchor_weight * self._anchor(student, x_held, t, c, target, draw), logs)
        yield from self.pair_terms(student, real, c, draw, step < self.warmup)

        if generates:
            if self.redraw:
                F_w = student(w, one, zero, c)
            push = clamped(gap, self.clamp)
            yield Loss("kl", self.kl_weight * mean_square(F_w, F_w.detach() - push))

    @staticmethod
    def _anchor(student: Velocity, x: Tensor, t: Tensor, c: Condition, target: Tensor, draw: Draw) -> Tensor:
        """The mean square error of the rows that the anchor sees; 0, without a forward, where it sees none."""
        return of_share(
            draw.shares.get("anchor_share"),
            lambda rows: mean_square(student(x[rows], t[rows], t[rows], c.select(rows)), target[rows]),
        )
