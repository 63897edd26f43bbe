"""One step held to pairs: a noise, and where the real field carries it.

A push by the difference of two fields says where the real distribution has more, and not which noise is to go there:
noises that fall together are pushed together from then on. The pairs say which. Both ask for one generator, the flow's
own map, so that neither is in the other's way but for the blur of a regression and the error of its Euler steps.
The regression of Yin et al., https://arxiv.org/abs/2311.18828, Eq. 9, in squares, on pairs drawn as they are needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from apexgen.condition import Condition
from apexgen.objectives.base import Draw, Loss, Objective, mean_square, of_share
from apexgen.objectives.check import unused, within
from apexgen.objectives.path import solve
from apexgen.velocities import Velocity


@dataclass(frozen=True)
class Paired(Objective):
    """What pairs an objective is told to hold, and their term."""

    pair_steps: int = 0  # Euler steps of v_real, to whose end one step from the same noise is drawn; 0: no pairs
    pair_weight: float = 0.125  # the more, the closer to the data's spread, and the less sharp
    pair_share: float = 0.125  # share of the batch that is carried so: a pair costs as many forwards as steps

    def __post_init__(self) -> None:
        within(self, "pair_steps", 0)
        within(self, "pair_weight", 1e-6)
        within(self, "pair_share", 1e-6, 1)
        if self.pair_steps == 0:
            unused(self, ("pair_weight", "pair_share"), "pair_steps = 0")

    @property
    def term_shares(self) -> dict[str, float]:
        return {"pair_share": self.pair_share} if self.pair_steps else {}

    def pair_terms(self, student: Velocity, real: Velocity, c: Condition, draw: Draw, prepares: bool) -> Iterator[Loss]:
        """The term pairs, weight |F(w, 1, c) - (w - x_end)|^2 with x_end where v_real carries w; none without pairs.

        While the student `prepares` they have the weight one, on the whole batch: what a push finds together stays so.
        """
        if self.pair_steps == 0:
            return
        w = draw.noises[0]
        one, zero = torch.ones_like(draw.times[0]), torch.zeros_like(draw.times[0])

        def drawn(rows: Tensor | slice) -> Tensor:
            at = w[rows], one[rows], zero[rows], c.select(rows)
            with torch.no_grad():
                x_end = solve(real, *at, self.pair_steps)
            return mean_square(student(*at), w[rows] - x_end)

        if prepares:
            yield Loss("pairs", drawn(slice(None)))
        else:
            yield Loss("pairs", self.pair_weight * of_share(draw.shares.get("pair_share"), drawn))
