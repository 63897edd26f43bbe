"""A 2-D world where one step can fail visibly: two conditions, four modes each, on a ring.

Eight Gaussians of deviation 0.08 on a circle of radius 2; condition k owns every second mode. The
conditional mean of each condition is the centre of the ring, far from every mode.
"""

import copy
import math

import torch
from torch import nn

from apexgen import flow, sample
from apexgen.condition import Condition
from apexgen.objectives import Batch, Nets

RADIUS, DEVIATION, MODES = 2.0, 0.08, 4
NULL = Condition(torch.zeros(1, 1, 2), torch.ones(1, 1))


def condition(labels):
    """One token a sample, one-hot, so that no condition is the other's shifted one."""
    embeds = nn.functional.one_hot(labels, 2).float()[:, None]
    return Condition(embeds, torch.ones(len(labels), 1))


def modes(labels):
    """The four centres (B, 4, 2) that belong to each label."""
    angle = math.pi / 4 * (2 * torch.arange(MODES) + labels[:, None])
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=-1)


def data(n, generator):
    """Labels (n,) and points (n, 2) of the ring."""
    labels = torch.randint(2, (n,), generator=generator)
    chosen = torch.randint(MODES, (n,), generator=generator)
    centres = modes(labels)[torch.arange(n), chosen]
    return labels, centres + DEVIATION * flow.normal((n, 2), generator)


def block(width):
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))


class MLP(nn.Module):
    """A small residual velocity of points (B, 2)."""

    def __init__(self, width=96, blocks=3):
        super().__init__()
        self.first = nn.Linear(2 + 9 + 2, width)
        wide = 2 * width
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, wide), nn.SiLU(), nn.Linear(wide, width))
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, 2)

    def forward(self, x, t, r, c):
        waves = math.pi * t * torch.tensor([0.5, 1, 2, 4]).to(t)
        h = self.first(torch.cat([x, t, waves.sin(), waves.cos(), c.embeds[:, 0]], dim=-1))
        for residual in self.blocks:
            h = h + residual(h)
        return self.last(h)


def train(objective, net, steps, seed, batch=256, lr=1e-3):
    """A trained copy of the net (its exponential moving average); the net itself is the teacher."""
    generator = torch.Generator().manual_seed(seed)
    teacher, student, ema = net, copy.deepcopy(net), copy.deepcopy(net)
    nets = Nets(student, teacher, ema)
    optimizer = torch.optim.Adam(student.parameters(), lr, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        labels, x = data(batch, generator)
        one = Batch(condition(labels), NULL, x)
        optimizer.zero_grad()
        for loss in objective.terms(nets, one, objective.draw(x.shape, generator), step):
            loss.value.backward()
        optimizer.step()
        with torch.no_grad():
            for average, value in zip(ema.parameters(), student.parameters(), strict=True):
                average.lerp_(value, 0.01)
    return ema


def judge(net, steps, n=4000, seed=99):
    """Sliced Wasserstein-1 to the data (lower is better) and the share near a right mode."""
    generator = torch.Generator().manual_seed(seed)
    labels, x = data(n, generator)
    y = sample.generate(net, condition(labels), flow.normal((n, 2), generator), steps)
    angle = math.pi * torch.arange(32) / 32
    across = torch.stack([angle.cos(), angle.sin()])
    distances = []
    for label in (0, 1):
        real, fake = (points[labels == label] @ across for points in (x, y))
        distances.append((real.sort(0).values - fake.sort(0).values).abs().mean())
    near = (y[:, None] - modes(labels)).norm(dim=-1).amin(1) < 0.3
    return torch.stack(distances).mean().item(), near.float().mean().item()
