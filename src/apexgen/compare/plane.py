"""The worlds of points: small networks trained in seconds, judged by distance."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import ClassVar

import torch
from torch import nn

from apexgen import flow
from apexgen.compare.contest import SETTLED, Judgement, World
from apexgen.compare.points import NULL, PointNetwork, Points, condition
from apexgen.cost import Cost, arithmetic, most_held
from apexgen.discriminator import Discriminator
from apexgen.objectives import Batch, FlowMatching, Nets, Objective
from apexgen.optimizer import rate
from apexgen.progress import counted
from apexgen.sample import euler, renoise, uniform_grid
from apexgen.shift import Shift
from apexgen.train import descend
from apexgen.velocities import Velocity

BATCH, RATE, DECAY = 256, 1e-3, 0.99
JUDGED = 4000  # points


class Plane(World):
    """Points in the plane; the teacher is flow matching from nothing."""

    measures: ClassVar[dict[str, str]] = {
        "distance": "sliced Wasserstein-1 to the data, lower is better",
        "right": "the share of points on a mode of their condition",
        "modes": "the share of modes that hold at least half of what they should",
    }
    higher_is_better = False
    diversity = "modes"
    evaluations = (1, 2, 4, 8, 20)
    teacher_evaluations = (1, 20, 50)

    def __init__(self, points: Points, teacher_steps: int) -> None:
        self.points, self.teacher_steps = points, teacher_steps

    @cached_property
    def teacher(self) -> PointNetwork:
        torch.manual_seed(0)
        return self._fit("the teacher", FlowMatching(), PointNetwork(), self.teacher_steps, 0, lambda *_: None)

    def cost(self, objective: Objective, step: int = SETTLED) -> Cost:
        network = PointNetwork()
        others = (copy.deepcopy(network), network, _discriminator(network, objective, seed=0))
        nets = Nets(copy.deepcopy(network), network, network, *others, shift=_shift(objective, seed=0))
        labels, x = self.points.data(BATCH, torch.Generator().manual_seed(0))
        batch, draw = Batch(condition(labels), NULL, x), objective.draw(x.shape, torch.Generator().manual_seed(0))
        t = torch.ones(BATCH, 1)
        modules = [net for net in vars(nets).values() if isinstance(net, nn.Module)]
        modules += [nets.discriminator.heads] if nets.discriminator else []
        weights = [weight for module in modules for weight in module.parameters()]
        forward = arithmetic(lambda: network(x, t, t, batch.c))
        run = lambda: descend(objective, nets, batch, draw, step)  # noqa: E731
        return Cost(arithmetic(run) / forward, most_held(run, weights))

    def train(
        self, name: str, objective: Objective, steps: int, seed: int, watch: Callable[[int, Velocity], None]
    ) -> PointNetwork:
        return self._fit(f"{name}, seed {seed}", objective, self.teacher, steps, seed, watch)

    def _fit(
        self,
        what: str,
        objective: Objective,
        start: PointNetwork,
        steps: int,
        seed: int,
        watch: Callable[[int, Velocity], None],
    ) -> PointNetwork:
        """A copy of the network trained by an objective, averaged on the way; the network itself is the teacher."""
        generator = torch.Generator().manual_seed(seed)
        student, average, fake = (copy.deepcopy(start) for _ in range(3))
        discriminator = _discriminator(start, objective, seed)
        shift = _shift(objective, seed)
        nets = Nets(student, start, average, fake, None, discriminator, shift)
        also = [module.parameters() for module in (discriminator and discriminator.heads, shift) if module is not None]
        trained = [*student.parameters(), *fake.parameters(), *chain(*also)]
        optimizer = torch.optim.Adam(trained, RATE, betas=(0.9, 0.99))
        for step in counted(range(steps), f"training {what}"):
            if objective.takes_snapshot(step):
                nets = replace(nets, snapshot=copy.deepcopy(student))
            optimizer.param_groups[0]["lr"] = RATE * rate(step, steps, 0)
            labels, x = self.points.data(BATCH, generator)
            optimizer.zero_grad()
            descend(objective, nets, Batch(condition(labels), NULL, x), objective.draw(x.shape, generator), step)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(student.parameters()), 1 - DECAY)
            watch(step + 1, average)
        return average

    @torch.no_grad()
    def judge(self, velocity: Velocity, steps: int, renoises: bool, seed: int = 99) -> Judgement:
        generator = torch.Generator().manual_seed(seed)
        labels, real = self.points.data(JUDGED, generator)
        z = flow.normal((JUDGED, 2), generator)
        fresh = [flow.normal((JUDGED, 2), generator) for _ in range(steps - 1)]
        grid, c = uniform_grid(steps), condition(labels)
        points = renoise(velocity, z, c, grid, fresh) if renoises else euler(velocity, z, c, grid)
        return self.points.judge(points, labels, real)


def _shift(objective: Objective, seed: int) -> Shift | None:
    """The one an objective wants of the labels, which are one-hot."""
    if getattr(objective, "shift_place", "condition") != "condition":
        raise ValueError('points have no projection of a text; write shift_place = "condition"')
    return objective.new_shift(2, None, seed)


def _discriminator(teacher: PointNetwork, objective: Objective, seed: int) -> Discriminator | None:
    """The one an objective wants, on a frozen copy of the teacher."""
    heads, frozen = objective.blocks_with_heads(len(teacher.blocks)), copy.deepcopy(teacher).requires_grad_(False)
    return Discriminator(frozen, [frozen.blocks[index] for index in heads], frozen.width, seed) if heads else None
