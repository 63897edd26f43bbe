"""APEX (Liu et al., 2026), https://arxiv.org/abs/2604.12322: one network in two roles.

Told the shifted condition c_fake = A c + b, the network learns the distribution of its own
samples (Eq. 12); how that field differs from the real one corrects the generator. `form` says
where the difference is evaluated:

- "kl", the default: on the generated path, where the gradient of KL(fake | real) is an
  expectation (Eq. 13); apex_kl.py.
- "mix": on the data path, the paper's Eq. 25 as printed; apex_mix.py. At t = 1 its minimiser is a
  conditional mean, so that in one step it cannot show a distribution with several modes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Generator

from apexgen.flow import normal, uniform_times
from apexgen.objectives.apex_kl import KlForm
from apexgen.objectives.apex_mix import mix_terms
from apexgen.objectives.apex_shift import SHIFT_FIELDS, Shifting
from apexgen.objectives.base import Batch, Draw, Loss, Nets, pictures, shares
from apexgen.objectives.check import guided_until, one_of, unused, within
from apexgen.velocities import guided

ONLY_KL = (
    "real", "guidance", "guidance_until", "warmup", "kl_weight", "anchor_weight", "anchor_share", "clamp",
    "redraw", "pair_steps",
)  # fmt: skip
ONLY_MIX = ("mix", "mix_weight", "fake_gradient")


@dataclass(frozen=True)
class Apex(KlForm, Shifting):
    """One-step distillation without a discriminator, a second network or a second time.

    Raises ValueError, one line, for a setting out of its range, without effect beside another, or an anchor that
    would hold nothing.
    """

    form: Literal["kl", "mix"] = "kl"
    # What tells the fake field apart: the shifted condition, or another prompt of the batch, a control.
    fake_told: Literal["shifted", "other"] = "shifted"
    time_low: float = 0.02  # t ~ U(time_low, time_high)
    time_high: float = 0.98
    # What holds the velocity field in place; None is "teacher" (prompts only), in mix "data".
    anchor: Literal["teacher", "data"] | None = None
    real: Literal["teacher", "ema", "student"] = "teacher"  # whose field is v_real
    guidance: float = 1.0  # classifier-free guidance inside v_real
    guidance_until: float = 1.0  # at times up to this; nearer the noise it decides places, and draws them together
    mix: float = 0.5  # lambda of Eq. 22
    mix_weight: float = 1.0  # lambda_e of Eq. 25
    fake_gradient: bool = False  # let the gradient of Eq. 12 flow through x_fake

    def __post_init__(self) -> None:
        KlForm.__post_init__(self)
        Shifting.__post_init__(self)
        one_of(self, "form", ("kl", "mix"))
        one_of(self, "fake_told", ("shifted", "other"))
        if self.fake_told == "other":
            unused(self, SHIFT_FIELDS, 'fake_told = "other"')
        if self.fake_weight == 0:
            unused(self, ("shift_learned",), "fake_weight = 0, from which a shift learns")
        one_of(self, "real", ("teacher", "ema", "student"))
        if self.anchor is None:  # resolved, so that a saved configuration says what was done
            object.__setattr__(self, "anchor", "teacher" if self.form == "kl" else "data")
        one_of(self, "anchor", ("teacher", "data"))
        unused(self, ONLY_MIX if self.form == "kl" else ONLY_KL, f'form = "{self.form}"')
        if self.anchor == "teacher" and (self.form == "mix" or self.real != "teacher"):
            # A field anchored to itself is not held at all, and Eq. 25 reads pictures.
            raise ValueError('anchor = "teacher" needs form = "kl", real = "teacher"; write anchor = "data"')
        within(self, "mix_weight", 0)
        guided_until(self)
        within(self, "mix", 0, 1)
        within(self, "time_low", 1e-3, 0.999)  # 0 and 1 have no velocity field to compare
        within(self, "time_high", self.time_low, 0.999)

    @property
    def needs_pictures(self) -> bool:
        return self.anchor == "data"

    @property
    def least_steps(self) -> int:
        return self.warmup if self.form == "kl" else 0

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        # With one noise for both, the fake field's target would be the student's own output.
        w, z = normal(shape, generator), normal(shape, generator)
        times = tuple(
            uniform_times(shape[0], self.time_low, self.time_high, generator, ndim=len(shape))
            for _ in range(1 if self.form == "kl" else 2)
        )
        return Draw((w, z), times, shares(shape[0], self.term_shares))

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        c = batch.c
        if self.fake_told == "shifted":
            c_fake = c.shift(nets.shift or self.plain_shift)  # Eq. 9
        else:
            c_fake = c.select(torch.arange(len(c)).roll(1))
        if self.form == "mix":
            terms = mix_terms(
                nets.student, c, c_fake, pictures(batch), draw,
                mix=self.mix, mix_weight=self.mix_weight,
                fake_weight=self.fake_weight, fake_gradient=self.fake_gradient,
            )  # fmt: skip
            return chain(terms, self.apart_terms(nets.shift))
        real = guided(getattr(nets, self.real), batch.null, self.guidance, self.guidance_until)
        x = pictures(batch) if self.anchor == "data" else None
        terms = self.kl_terms(nets.student, real, c, c_fake, x, draw, step)
        return chain(terms, self.apart_terms(nets.shift))
