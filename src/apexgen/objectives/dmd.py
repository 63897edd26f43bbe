"""Distribution matching distillation (Yin et al., 2023), https://arxiv.org/abs/2311.18828.

A second network, `nets.fake`, learns the flow of the generator's samples; its difference from the teacher's moves them.
That is what APEX does by a shifted condition in one network. From DMD2, https://arxiv.org/abs/2405.14867: no pairs of
noise and teacher's picture unless `pair_steps` asks for them, and a generator that moves in one step of
`generator_every`; its discriminator is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator

from apexgen.flow import endpoint, interpolate, normal, uniform_times, velocity
from apexgen.objectives.base import Batch, Draw, Loss, Nets, mean_square, shares
from apexgen.objectives.check import guided_until, unused, within
from apexgen.objectives.pairs import Paired
from apexgen.velocities import guided


@dataclass(frozen=True)
class Dmd(Paired):
    """A one-step generator by a second network; stock networks do, and prompts are all the data."""

    guidance: float = 1.0  # of the teacher
    guidance_until: float = 1.0  # at times up to this, as in apex.py
    time_low: float = 0.02  # t ~ U(time_low, time_high)
    time_high: float = 0.98
    warmup: int = 150  # first steps of the fake network alone
    generator_every: int = 1  # the paper's second version: 5
    normalise: bool = True  # divide a sample's push by its distance from the teacher's estimate, Eq. 8
    floor: float = 1e-4  # least such distance

    def __post_init__(self) -> None:
        guided_until(self)
        within(self, "time_low", 1e-3, 0.999)
        within(self, "time_high", self.time_low, 0.999)
        within(self, "warmup", 0)
        within(self, "generator_every", 1)
        within(self, "floor", 1e-12)
        if not self.normalise:
            unused(self, ("floor",), "normalise = false")
        super().__post_init__()

    @property
    def period(self) -> int:
        return self.generator_every

    @property
    def needs_pictures(self) -> bool:
        return False

    @property
    def needs_fake_network(self) -> bool:
        return True

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        t = uniform_times(shape[0], self.time_low, self.time_high, generator, ndim=len(shape))
        noises = normal(shape, generator), normal(shape, generator)
        return Draw(noises, (t,), shares(shape[0], self.term_shares))

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        assert nets.fake is not None, "the trainer gives a fake network where needs_fake_network"
        (w, z), (t,), c = draw.noises, draw.times, batch.c
        one, zero = torch.ones_like(t), torch.zeros_like(t)
        generates = step >= self.warmup and (step - self.warmup) % self.generator_every == 0

        with torch.set_grad_enabled(generates):
            F_w = nets.student(w, one, zero, c)
        x_fake = endpoint(w, F_w.detach(), one)
        x_t = interpolate(x_fake, z, t)
        v_fake = nets.fake(x_t, t, t, c)
        yield Loss("fake", mean_square(v_fake, velocity(x_fake, z)))  # Eq. 6, in velocities
        real = guided(nets.teacher, batch.null, self.guidance, self.guidance_until)
        yield from self.pair_terms(nets.student, real, c, draw, step < self.warmup)
        if not generates:
            return

        with torch.no_grad():
            v_real = real(x_t, t, t, c)
            gap = t * (v_fake - v_real)  # E_real[x | x_t] - E_fake[x | x_t], Eq. 7
            if self.normalise:
                far = (x_fake - endpoint(x_t, v_real, t)).abs().flatten(1).mean(1).view(t.shape)
                gap = gap / far.clamp(min=self.floor)  # Eq. 8
        yield Loss("generator", mean_square(F_w, F_w.detach() - gap), {"gap": gap.abs().mean()})
