"""SANA-Sprint (Chen et al., 2025), https://arxiv.org/abs/2503.09641: continuous consistency with LADD beside it.

    L = L_sCM + lambda L_adversarial.

Consistency holds the student to the teacher's trajectories, the discriminator makes its jumps sharp. Left out: their
dense time embedding and normalised queries and keys, which change the network, and its guidance as an input.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Generator

from apexgen.objectives.base import Batch, Draw, Loss, Nets
from apexgen.objectives.check import within
from apexgen.objectives.consistency import Consistency
from apexgen.objectives.ladd import Ladd


@dataclass(frozen=True)
class SanaSprint(Ladd):
    """One to a few steps; stock networks do. Sampled by `renoise`. The times of consistency are drawn about 1/2."""

    adversarial_weight: float = 0.5  # lambda, of the generator's term alone
    guidance: float = 1.0  # of consistency's teacher
    tangent_warmup: int = 300  # as in Consistency, like the next
    difference: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "adversarial_weight", 1e-6)
        self.consistency()  # refuses what it would refuse by itself

    @property
    def derivative_step(self) -> float:
        return self.difference

    def consistency(self) -> Consistency:
        """The term beside LADD's two."""
        return Consistency(
            form="continuous",
            guidance=self.guidance,
            tangent_warmup=self.tangent_warmup,
            difference=self.difference,
        )

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        mine, other = super().draw(shape, generator), self.consistency().draw(shape, generator)
        return Draw(noises=(*mine.noises, *other.noises), times=(*mine.times, *other.times))

    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        yield from self.consistency().terms(nets, batch, Draw(draw.noises[2:], draw.times[2:]), step)
        for loss in super().terms(nets, batch, Draw(draw.noises[:2], draw.times[:2]), step):
            weight = self.adversarial_weight if loss.name == "generator" else 1.0
            yield Loss(loss.name, weight * loss.value, loss.logs)
