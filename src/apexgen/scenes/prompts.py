"""Captions of scenes in GenEval's six tasks; some combinations are held out whole.

A caption's `exclude` names every class, so that GenEval's own rule ("at least that many, and fewer
than excluded") says exactly what a picture must hold. Held out: a color for each shape, two plain pairs
of shapes, a number for three shapes, a fifth of the relations; of a single object, which has nothing to
combine, a fifth of the wordings.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from apexgen.rules import RELATIONS, TASKS
from apexgen.scenes.world import COLORS, SHAPES

NUMBERS = {2: "two", 3: "three", 4: "four"}
OTHER = "other"  # the class of a figure that is no known shape
WORDINGS = (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "a painting of {}",
    "a sketch of {}",
    "a view of {}",
    "a scene with {}",
    "we see {}",
    "{}",
)


@dataclass(frozen=True)
class Request:
    """One thing asked for: a shape, how many, its color, its place relative to the first one."""

    shape: str
    count: int = 1
    color: str | None = None
    relation: str | None = None


@dataclass(frozen=True)
class Caption:
    """A prompt and what its picture must hold."""

    task: str
    text: str
    requests: tuple[Request, ...]

    def metadata(self) -> dict:
        """GenEval's record: tag, include, exclude, prompt."""
        include = [_included(request) for request in self.requests]
        counts = {request.shape: request.count for request in self.requests}
        classes = (*SHAPES, OTHER)
        exclude = [{"class": name, "count": counts.get(name, 0) + 1} for name in classes]
        return {"tag": self.task, "include": include, "exclude": exclude, "prompt": self.text}


def _included(request: Request) -> dict:
    record: dict = {"class": request.shape, "count": request.count}
    if request.color:
        record["color"] = request.color
    if request.relation:
        record["position"] = [request.relation, 0]
    return record


def color_is_held_out(shape: str, color: str) -> bool:
    """One color for each shape is never named with it in training."""
    return list(COLORS).index(color) == (2 * SHAPES.index(shape) + 1) % len(COLORS)


def pair_is_held_out(first: str, second: str) -> bool:
    """Square and ring, and triangle and cross, are never asked for as a plain pair in training."""
    return (SHAPES.index(first) + SHAPES.index(second)) % 5 == 0


def count_is_held_out(shape: str, count: int) -> bool:
    """Three circles, two triangles and four rings are never asked for in training, nor seen."""
    return (shape, count) in {("circle", 3), ("triangle", 2), ("ring", 4)}


def relation_is_held_out(subject: str, relation: str, other: str) -> bool:
    """A fifth of (subject, relation, other) is never asked for in training."""
    return (SHAPES.index(subject) + 2 * SHAPES.index(other) + RELATIONS.index(relation)) % 5 == 0


def is_held_out(requests: tuple[Request, ...]) -> bool:
    """Whether what is asked for is a combination that training never asks for."""
    first, *rest = requests
    plain = all(request.color is None and request.relation is None for request in requests)
    return (
        any(r.color is not None and color_is_held_out(r.shape, r.color) for r in requests)
        or count_is_held_out(first.shape, first.count)
        or (plain and any(pair_is_held_out(first.shape, other.shape) for other in rest))
        or any(r.relation and relation_is_held_out(r.shape, r.relation, first.shape) for r in rest)
    )


def _contents(task: str) -> list[tuple[str, tuple[Request, ...]]]:
    """Everything a task can ask for: words and requests."""
    pairs = list(itertools.permutations(SHAPES, 2))
    colored = [(color, shape) for color in COLORS for shape in SHAPES]
    if task == "single_object":
        return [(f"a {shape}", (Request(shape),)) for shape in SHAPES]
    if task == "two_object":
        return [(f"a {a} and a {b}", (Request(a), Request(b))) for a, b in pairs]
    if task == "counting":
        return [
            (f"{word} {plural(shape)}", (Request(shape, count),)) for shape in SHAPES for count, word in NUMBERS.items()
        ]
    if task == "colors":
        return [(f"a {color} {shape}", (Request(shape, color=color),)) for color, shape in colored]
    if task == "position":  # GenEval's order: the landmark is include[0], the subject leads the words
        return [
            (f"a {b} {relation} a {a}", (Request(a), Request(b, relation=relation)))
            for a, b in pairs
            for relation in RELATIONS
        ]
    if task == "color_attr":
        return [
            (f"a {c} {a} and a {d} {b}", (Request(a, color=c), Request(b, color=d)))
            for (c, a), (d, b) in itertools.permutations(colored, 2)
            if a != b and c != d
        ]
    raise ValueError(f"unknown task {task!r}: use one of {', '.join(TASKS)}")


def plural(shape: str) -> str:
    """The word for several of a shape."""
    return shape + ("es" if shape == "cross" else "s")


def captions(task: str, held_out: bool) -> list[Caption]:
    """All captions of a task, for training or held out; in a fixed order."""
    found = []
    for (position, (words, requests)), (index, wording) in itertools.product(
        enumerate(_contents(task)), enumerate(WORDINGS)
    ):
        hidden = (position + index) % 5 == 0 if task == "single_object" else is_held_out(requests)
        if hidden == held_out:
            found.append(Caption(task, wording.format(words), requests))
    return found


def draw_captions(per_task: int | Mapping[str, int], held_out: bool, seed: int) -> list[Caption]:
    """Captions of each task, spread evenly over its combinations, reproducible from the seed.

    per_task: how many of every task, or how many of each by name.
    """
    random = np.random.default_rng(seed)
    drawn = []
    for task in TASKS:
        count = per_task if isinstance(per_task, int) else per_task[task]
        every = captions(task, held_out)
        order = np.concatenate([random.permutation(len(every)) for _ in range(max(1, -(-count // len(every))))])
        drawn += [every[index] for index in order[:count]]
    return drawn
