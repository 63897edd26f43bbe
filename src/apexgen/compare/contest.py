"""Objectives on equal terms: one teacher, one order of data, one budget of network evaluations, several seeds."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from apexgen import flow
from apexgen.compare.points import NULL, PointNetwork, Points, condition
from apexgen.discriminator import Discriminator
from apexgen.objectives import Batch, Nets, Objective
from apexgen.objectives.flow_matching import FlowMatching
from apexgen.sample import euler, renoise, uniform_grid
from apexgen.train import descend, rate

BATCH, RATE, DECAY = 256, 1e-3, 0.99
JUDGED = 4000  # points
EVALUATIONS = (1, 2, 4, 8, 16)  # in sampling


@dataclass(frozen=True)
class Contestant:
    """An objective in one setting, and how its students are sampled."""

    objective: Objective
    renoises: bool = False  # a consistency model jumps to the data and back; others take straight steps


def pretrain(world: Points, steps: int, seed: int) -> PointNetwork:
    """The teacher: flow matching from nothing."""
    torch.manual_seed(seed)
    return train(FlowMatching(), world, PointNetwork(), steps, seed)


def steps_within(budget: float, objective: Objective, world: Points) -> tuple[int, float]:
    """How many steps a budget of evaluations buys, and what each costs.

    ValueError where they do not reach past the objective's warm-up.
    """
    cost = evaluations_per_step(objective, world)
    steps, warmup = int(budget / cost), getattr(objective, "warmup", 0)
    if steps <= warmup:
        raise ValueError(
            f"--budget {budget:g} is {steps} steps of {type(objective).__name__}, whose warm-up is {warmup}; "
            f"write --budget {2 * (warmup + 1) * cost:.0f}"
        )
    return steps, cost


def evaluations_per_step(objective: Objective, world: Points) -> float:
    """The arithmetic of one step after every warm-up, in forwards of its batch, counted operation by operation."""
    network = PointNetwork()
    others = (copy.deepcopy(network), network, _discriminator(network, objective, seed=0))
    nets = Nets(copy.deepcopy(network), network, network, *others)
    labels, x = world.data(BATCH, torch.Generator().manual_seed(0))
    batch, drawn = Batch(condition(labels), NULL, x), objective.draw(x.shape, torch.Generator().manual_seed(0))
    t = torch.ones(BATCH, 1)

    def count(run: Callable[[], Any]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return int(counter.get_total_flops())

    step = count(lambda: descend(objective, nets, batch, drawn, 10**9))
    return step / count(lambda: network(x, t, t, batch.c))


def train(objective: Objective, world: Points, start: PointNetwork, steps: int, seed: int) -> PointNetwork:
    """A copy of the network trained by an objective, averaged on the way; the network itself is the teacher."""
    generator = torch.Generator().manual_seed(seed)
    student, average, fake = (copy.deepcopy(start) for _ in range(3))
    discriminator = _discriminator(start, objective, seed)
    nets = Nets(student, start, average, fake, None, discriminator)
    heads = discriminator.heads.parameters() if discriminator else ()
    optimizer = torch.optim.Adam([*student.parameters(), *fake.parameters(), *heads], RATE, betas=(0.9, 0.99))
    for step in range(steps):
        if objective.takes_snapshot(step):
            nets = replace(nets, snapshot=copy.deepcopy(student))
        optimizer.param_groups[0]["lr"] = RATE * rate(step, steps, 0)
        labels, x = world.data(BATCH, generator)
        optimizer.zero_grad()
        descend(objective, nets, Batch(condition(labels), NULL, x), objective.draw(x.shape, generator), step)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(student.parameters()), 1 - DECAY)
    return average


def _discriminator(teacher: PointNetwork, objective: Objective, seed: int) -> Discriminator | None:
    """The one an objective wants, on a frozen copy of the teacher."""
    heads, frozen = objective.blocks_with_heads(len(teacher.blocks)), copy.deepcopy(teacher).requires_grad_(False)
    return Discriminator(frozen, [frozen.blocks[index] for index in heads], frozen.width, seed) if heads else None


@torch.no_grad()
def judge(world: Points, network: PointNetwork, steps: int, renoises: bool, seed: int = 99) -> dict[str, float]:
    """What the world says of a network sampled in `steps` evaluations."""
    generator = torch.Generator().manual_seed(seed)
    labels, real = world.data(JUDGED, generator)
    z = flow.normal((JUDGED, 2), generator)
    fresh = [flow.normal((JUDGED, 2), generator) for _ in range(steps - 1)]
    grid, c = uniform_grid(steps), condition(labels)
    points = renoise(network, z, c, grid, fresh) if renoises else euler(network, z, c, grid)
    return world.judge(points, labels, real)


def contest(
    world: Points,
    contestants: dict[str, Contestant],
    budget: float,
    seeds: Sequence[int],
    teacher_steps: int,
    told: Callable[[str], None],
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Every contestant from the same teacher; the report: for each the mean and spread over seeds at each NFE.

    `keep` is given the report so far after each contestant: a contest that is stopped has lost only the one it was at.

    The report's entries: {"steps", "evaluations_per_step", "seconds", "nfe": {"1": {"distance": [mean, deviation],
    "right": ..., "modes": ...}, ...}}. ValueError, before anything is trained, for a budget too small.
    """
    plans = {name: steps_within(budget, one.objective, world) for name, one in contestants.items()}
    told(f"teacher: {teacher_steps} steps of flow matching")
    teacher = pretrain(world, teacher_steps, seed=0)
    report: dict[str, Any] = {"teacher": {"steps": teacher_steps, "nfe": _table([teacher], world, (1, 16, 50), False)}}
    for name, one in contestants.items():
        (steps, cost), began = plans[name], time.perf_counter()
        students = [train(one.objective, world, teacher, steps, seed) for seed in seeds]
        report[name] = {
            "steps": steps,
            "evaluations_per_step": round(cost, 2),
            "seconds": round((time.perf_counter() - began) / len(students), 1),
            "nfe": _table(students, world, EVALUATIONS, one.renoises),
        }
        first = report[name]["nfe"]["1"]
        told(f"{name}: distance {first['distance'][0]:.3f}, right {first['right'][0]:.2f} in one step")
        keep(report)
    return report


def _table(networks: list[PointNetwork], world: Points, evaluations: Sequence[int], renoises: bool) -> dict[str, Any]:
    table = {}
    for steps in evaluations:
        said = [judge(world, network, steps, renoises) for network in networks]
        table[str(steps)] = {
            key: [statistics.mean(one[key] for one in said), statistics.pstdev(one[key] for one in said)]
            for key in said[0]
        }
    return table
