"""Objectives on equal terms: one teacher, one order of data, a budget of network evaluations, several seeds."""

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from apexgen.cost import Cost
from apexgen.objectives import FlowMatching, Objective
from apexgen.progress import counted, working
from apexgen.velocities import Velocity

Judgement = dict[str, float]
MARKS = (0.25, 0.5, 0.75)  # shares of a training after which one step is judged
SETTLED = 10**9  # a step after every warm-up


class World(ABC):
    """Data, a teacher of it, and a judge; where contestants train."""

    measures: ClassVar[dict[str, str]]  # what a judgement says, each with what it means; the first one decides
    higher_is_better: ClassVar[bool]  # of the first measure
    diversity: ClassVar[str]  # the measure that a student may give up for the first one
    evaluations: ClassVar[tuple[int, ...]]  # steps of sampling at which a student is judged
    teacher_evaluations: ClassVar[tuple[int, ...]]

    @abstractmethod
    def cost(self, objective: Objective, step: int = SETTLED) -> Cost:
        """One training step of it, the first being step 0."""

    @abstractmethod
    def train(
        self, name: str, objective: Objective, steps: int, seed: int, watch: Callable[[int, Velocity], None]
    ) -> Velocity:
        """A student of the teacher; `watch` is given its average after every step."""

    @abstractmethod
    def judge(self, velocity: Velocity, steps: int, renoises: bool) -> Judgement:
        """What is to be said of a velocity sampled in so many evaluations: a value for each measure."""

    @property
    @abstractmethod
    def teacher(self) -> Velocity:
        """What all students start from; trained on first use."""


@dataclass(frozen=True)
class Training:
    """How long a contestant trains, and what for."""

    steps: int
    cost: Cost  # of a step after every warm-up
    first: int  # the first steps, which may be dearer
    dearer: float  # by how many evaluations each

    def spent(self, step: int) -> float:
        """The evaluations of the first `step` training steps."""
        return step * self.cost.evaluations + min(step, self.first) * self.dearer


def plan(world: World, objective: Objective, budget: float) -> Training:
    """The training that a budget of evaluations buys; what is dearer in its first steps, it pays for.

    ValueError where they are used up before the student learns anything.
    """
    least, first, ahead = objective.least_steps, objective.first_steps, range(objective.period)
    costs = [world.cost(objective, SETTLED + k) for k in ahead]
    cost = Cost(statistics.mean(one.evaluations for one in costs), max(one.held_bytes for one in costs))
    dearer = max(0, world.cost(objective, 0).evaluations - cost.evaluations) if first else 0
    steps = int((budget - first * dearer) / cost.evaluations)
    if steps <= least:
        raise ValueError(
            f"--budget {budget:g} is {steps} steps of {type(objective).__name__}, which takes {least} to prepare; "
            f"write --budget {2 * (least + 1) * (cost.evaluations + dearer):.0f}"
        )
    return Training(steps, cost, first, dearer)


def contest(
    world: World,
    contestants: Mapping[str, Objective],
    budgets: Mapping[str, float],
    seeds: Sequence[int],
    told: Callable[[str], None],
    keep: Callable[[dict[str, Any]], None],
    done: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Every contestant from the same teacher; the report: for each the mean and deviation over seeds at each NFE.

    `keep` is given the report so far after each contestant: a contest that is stopped has lost only the one it was at.
    done: the entries of contestants who were through before, which are taken as they are.

    The report's entries: {"steps", "evaluations_per_step", "memory", "seconds", "nfe": {"1": {measure: [mean,
    deviation], ...}, ...}, "training": {evaluations: [mean, deviation]}}. memory: the bytes held for backward over
    those of a step of flow matching; training: the deciding measure in one step, on the way.
    ValueError, before anything is trained, for a budget too small.
    """
    with working("counting what a step of each takes"):
        left = {name: objective for name, objective in contestants.items() if name not in done}
        plans = {name: plan(world, objective, budgets[name]) for name, objective in left.items()}
        least = world.cost(FlowMatching()).held_bytes
    told("the teacher")
    teacher = world.teacher
    with working("judging the teacher"):
        at_rest = {str(steps): _spread([world.judge(teacher, steps, False)]) for steps in world.teacher_evaluations}
    report: dict[str, Any] = {"teacher": {"nfe": at_rest}}
    for name, objective in contestants.items():
        report[name] = done[name] if name in done else _enter(world, name, objective, plans[name], least, seeds)
        first = report[name]["nfe"]["1"]
        before = ", trained before" if name in done else ""
        told(f"{name}{before}: " + ", ".join(f"{key} {mean:.3f}" for key, (mean, _) in first.items()) + " in one step")
        keep(report)
    return report


def _enter(
    world: World, name: str, objective: Objective, training: Training, least: int, seeds: Sequence[int]
) -> dict[str, Any]:
    """A contestant's entry in the report, from a training of each seed; least: the bytes that flow matching holds."""
    began = time.perf_counter()
    taught = [_teach(world, name, objective, training.steps, seed) for seed in seeds]
    return {
        "steps": training.steps,
        "evaluations_per_step": round(training.cost.evaluations, 2),
        "memory": round(training.cost.held_bytes / least, 2),
        "seconds": round((time.perf_counter() - began) / len(taught), 1),
        "nfe": {str(count): _spread([said[count] for said, _ in taught]) for count in world.evaluations},
        "training": _curve([curve for _, curve in taught], training),
    }


def _teach(
    world: World, name: str, objective: Objective, steps: int, seed: int
) -> tuple[dict[int, Judgement], dict[int, float]]:
    """One training: what the world says of the student at each NFE, and the deciding measure on the way.

    A training that resumes has passed its early marks already; its curve begins later.
    """
    first = next(iter(world.measures))
    curve: dict[int, float] = {}
    marks = {max(1, round(share * steps)) for share in MARKS}

    def watch(step: int, average: Velocity) -> None:
        if step in marks:
            curve[step] = world.judge(average, 1, objective.renoises)[first]

    student = world.train(name, objective, steps, seed, watch)
    counts = counted(world.evaluations, f"judging {name}, seed {seed}")
    said = {count: world.judge(student, count, objective.renoises) for count in counts}
    return said, curve | {steps: said[1][first]}


def _spread(said: Sequence[Judgement]) -> dict[str, list[float]]:
    return {key: _mean([one[key] for one in said]) for key in said[0]}


def _curve(curves: Sequence[dict[int, float]], training: Training) -> dict[str, list[float]]:
    return {
        str(round(training.spent(step))): _mean([curve[step] for curve in curves if step in curve])
        for step in sorted({step for curve in curves for step in curve})
    }


def _mean(values: Sequence[float]) -> list[float]:
    return [statistics.mean(values), statistics.pstdev(values)]
