"""Worlds of points in the plane, where one step can fail visibly: data, conditions, a network, and a judge.

Each has two conditions, and several modes in each: the conditional mean, the best that one step of a teacher can say,
is far from every one of them.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from apexgen import flow
from apexgen.condition import Condition

NULL = Condition(torch.zeros(1, 1, 2), torch.ones(1, 1))
DIRECTIONS = 32  # that the sliced distance projects on


class Points(ABC):
    """A distribution of points for each of two labels."""

    modes: Tensor  # (2, M, 2): the centres of each label's modes
    near: float  # the distance within which a point belongs to a mode

    @abstractmethod
    def around(self, centres: Tensor, generator: Generator) -> Tensor:
        """One point of the mode at each centre (n, 2)."""

    def data(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Labels (n,) and points (n, 2)."""
        labels = torch.randint(2, (n,), generator=generator)
        chosen = torch.randint(self.modes.shape[1], (n,), generator=generator)
        return labels, self.around(self.modes[labels, chosen], generator)

    def judge(self, points: Tensor, labels: Tensor, real: Tensor) -> dict[str, float]:
        """Points against as many real ones of the same labels.

        distance: sliced Wasserstein-1, lower is better; right: the share within `near` of a mode of the label;
        modes: the share of modes that hold at least half as many as they should.
        """
        angle = math.pi * torch.arange(DIRECTIONS) / DIRECTIONS
        across = torch.stack([angle.cos(), angle.sin()])
        distances, counts = [], []
        for label in (0, 1):
            mine, theirs = (some[labels == label] @ across for some in (points, real))
            distances.append((mine.sort(0).values - theirs.sort(0).values).abs().mean())
            apart = (points[labels == label][:, None] - self.modes[label]).abs()
            counts.append((self.size(apart) < self.near).float().mean(0))
        held = torch.stack(counts)  # (2, M): each mode's share of its label's points
        return {
            "distance": float(torch.stack(distances).mean()),
            "right": float(held.sum(1).mean()),
            "modes": float((held > 0.5 / held.shape[1]).float().mean()),
        }

    def size(self, apart: Tensor) -> Tensor:
        """The distance of the offsets (..., 2) that `near` is a bound of."""
        return apart.norm(dim=-1)


class Ring(Points):
    """Eight Gaussians of deviation 0.08 on a circle of radius 2; each label owns every second one."""

    near, deviation = 0.3, 0.08

    def __init__(self) -> None:
        angle = math.pi / 4 * (2 * torch.arange(4) + torch.arange(2)[:, None])
        self.modes = 2 * torch.stack([angle.cos(), angle.sin()], dim=-1)

    def around(self, centres: Tensor, generator: Generator) -> Tensor:
        return centres + self.deviation * flow.normal((len(centres), 2), generator)


class Checkerboard(Points):
    """The eight dark squares, of side 1, of a 4 x 4 board around the origin; each label owns every second one."""

    near = 0.5  # half a side

    def __init__(self) -> None:
        dark = [(x - 1.5, y - 1.5) for x in range(4) for y in range(4) if (x + y) % 2 == 0]
        self.modes = torch.tensor([dark[0::2], dark[1::2]])

    def around(self, centres: Tensor, generator: Generator) -> Tensor:
        return centres + torch.rand(centres.shape, generator=generator) - 0.5

    def size(self, apart: Tensor) -> Tensor:
        return apart.amax(dim=-1)


WORLDS: dict[str, type[Points]] = {"ring": Ring, "checkerboard": Checkerboard}


def condition(labels: Tensor) -> Condition:
    """One token a point, one-hot, so that no condition is the other's shifted one."""
    return Condition(nn.functional.one_hot(labels, 2).float()[:, None], torch.ones(len(labels), 1))


class PointNetwork(nn.Module):
    """A small residual velocity (x, t, r, c) of points (B, 2); it reads r, and is silent about it at first."""

    def __init__(self, width: int = 96, blocks: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(2 + 9 + 2, width)
        self.second_time = nn.Linear(9, width)
        nn.init.zeros_(self.second_time.weight)
        nn.init.zeros_(self.second_time.bias)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(blocks)
        )
        self.width, self.last = width, nn.Linear(width, 2)

    def forward(self, x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        h = self.first(torch.cat([x, _waves(t), c.embeds[:, 0]], dim=-1)) + (t - r) * self.second_time(_waves(r))
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


def _waves(t: Tensor) -> Tensor:
    angle = math.pi * t * torch.tensor([0.5, 1, 2, 4]).to(t)
    return torch.cat([t, angle.sin(), angle.cos()], dim=-1)
