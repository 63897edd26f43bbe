"""Latent adversarial distillation (Sauer et al., 2024), https://arxiv.org/abs/2403.12015: what APEX does without.

A discriminator tells real latents from generated ones, both noised to time t, by heads on the features that the frozen
teacher makes of them; the generator learns from nothing else. Hinge losses, with R1 on the heads' inputs (as in
https://arxiv.org/abs/2311.17042, Eq. 3). The paper's real latents are the teacher's own samples; here, the pictures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from apexgen import flow
from apexgen.discriminator import Discriminator
from apexgen.objectives.base import Batch, Draw, Loss, Nets, pictures
from apexgen.objectives.check import within
from apexgen.objectives.path import LogitNormal, on_grid


@dataclass(frozen=True)
class Ladd(LogitNormal):
    """A generator of `steps` steps against heads on the teacher; stock networks do. Sampled by `renoise`."""

    logit_mean: float = 1.0  # of the time the discriminator sees: late, where structure is judged
    steps: int = 1  # the generator starts at the times 1 / steps ... 1, from noised pictures below 1
    every: int = 1  # a head on each block, counted from the last; 2 is on every second one
    r1: float = 30.0  # weight of the squared gradient by the heads' inputs; on the ring 3 and less let modes collapse
    warmup: int = 0  # first steps of the discriminator alone

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "steps", 1)
        within(self, "every", 1)
        within(self, "r1", 0)
        within(self, "warmup", 0)

    def blocks_with_heads(self, count: int) -> Sequence[int]:
        """Every so many, the last among them; ValueError for a network that has none."""
        if count == 0:
            raise ValueError('this network has no blocks that a discriminator could read; write objective.name = "dmd"')
        return range((count - 1) % self.every, count, self.every)

    @property
    def renoises(self) -> bool:
        return True

    def second_times(self, t: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        """Where the generator starts."""
        return (on_grid(1 - torch.rand(t.shape, generator=generator, device=generator.device), self.steps),)

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        base = super().draw(shape, generator)
        return Draw(noises=(*base.noises, flow.normal(shape, generator)), times=base.times)

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        assert nets.discriminator is not None, "the trainer gives a discriminator where blocks_with_heads"
        x, (z, w), (t, s), c, judge = pictures(batch), draw.noises, draw.times, batch.c, nets.discriminator
        generates = step >= self.warmup
        with torch.set_grad_enabled(generates):
            x_s = flow.interpolate(x, w, s)
            x_fake = flow.endpoint(x_s, nets.student(x_s, s, torch.zeros_like(s), c), s)
            fake = judge.features(flow.interpolate(x_fake, z, t), t, c)
        with torch.no_grad():
            real = judge.features(flow.interpolate(x, z, t), t, c)
        yield self.told_apart(judge, real, [one.detach() for one in fake])
        if generates:
            yield Loss("generator", -judge.logits(fake, learns=False).mean())

    def told_apart(self, judge: Discriminator, real: list[Tensor], fake: list[Tensor]) -> Loss:
        """E max(0, 1 - D(real)) + E max(0, 1 + D(fake)), and R1: E |dD / d token|^2 at the real ones."""
        # Cloned: whoever counts operations, as torch's counter does, refuses a gradient by leaves.
        real = [one.detach().requires_grad_().clone() for one in real] if self.r1 > 0 else real
        on_real, on_fake = judge.logits(real), judge.logits(fake)
        value = (1 - on_real).relu().mean() + (1 + on_fake).relu().mean()
        if self.r1 > 0:
            slopes = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            value = value + self.r1 * torch.stack([one.square().sum(-1).mean() for one in slopes]).mean()
        return Loss("discriminator", value, {"on_real": on_real.detach().mean(), "on_fake": on_fake.detach().mean()})
