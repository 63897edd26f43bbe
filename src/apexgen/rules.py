"""GenEval's rules for what was found in a picture, whoever found it, and its summary of many pictures.

A record asks for things (`include`: class, count, perhaps a color, a position relative to another) and bars others
(`exclude`). Ghosh et al., GenEval, https://arxiv.org/abs/2310.11513, as its evaluation script has it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
SLACK = 0.1  # of both extents, which centres may be apart without a relation

Box = Sequence[float]  # left, top, right, bottom


class Thing(Protocol):
    """Something found in a picture."""

    @property
    def box(self) -> Box: ...


T = TypeVar("T", bound=Thing)
Record = Mapping[str, Any]  # of GenEval's metadata: tag, include, exclude, prompt


def relations(subject: Box, landmark: Box) -> list[str]:
    """The relations of subject to landmark, boxes in pixels or in shares.

    direction = sign(offset) max(|offset| - slack, 0) / |offset|, with the offset of the centres and a slack of a tenth
    of both extents; a relation holds where direction exceeds a half. None where all of it is within the slack.
    """
    a, b = (np.asarray(box[:4], dtype=np.float32).reshape(2, 2) for box in (subject, landmark))
    offset = a.mean(axis=0) - b.mean(axis=0)
    slack = SLACK * (np.abs(a[1] - a[0]) + np.abs(b[1] - b[0]))
    revised = np.maximum(np.abs(offset) - slack, 0) * np.sign(offset)
    if np.all(np.abs(revised) < 1e-3):
        return []
    across, down = revised / np.linalg.norm(offset)
    return [name for name, part in zip(RELATIONS, (-across, across, -down, down), strict=True) if part > 0.5]


def faults(
    found: Mapping[str, Sequence[T]], record: Record, colors: Callable[[str, Sequence[T]], list[str]]
) -> list[str]:
    """What is wrong with a picture, in GenEval's words; it is correct where nothing is.

    found: things by class, the surest first: as many as asked for are looked at. colors: the color of each of some
    things of a class, asked only where a record names one.
    """
    said: list[str] = []
    matched: list[Sequence[T] | None] = []
    for asked in record.get("include", []):
        group = found.get(asked["class"], [])[: asked["count"]]
        wrong = next(_included(asked, group, matched, colors), None)
        matched.append(group if wrong is None else None)
        said += [] if wrong is None else [wrong]
    for barred in record.get("exclude", []):
        if (number := len(found.get(barred["class"], []))) >= barred["count"]:
            said.append(f"expected {barred['class']}<{barred['count']}, found {number}")
    return said


def _included(
    asked: Mapping[str, Any],
    group: Sequence[T],
    matched: Sequence[Sequence[T] | None],
    colors: Callable[[str, Sequence[T]], list[str]],
) -> Iterator[str]:
    name, count = asked["class"], asked["count"]
    if len(group) < count:
        yield f"expected {name}>={count}, found {len(group)}"
        return
    if "color" in asked:
        color, seen = asked["color"], colors(name, group)
        if seen.count(color) < count:
            listed = ", ".join(f"{seen.count(other)} {other}" for other in COLORS if other in seen)
            yield f"expected {color} {name}>={count}, found {seen.count(color)} {color}; and {listed}"
    if "position" in asked:
        relation, target = asked["position"]
        landmarks = matched[target]
        if landmarks is None:
            yield f"no target for {name} to be {relation}"
        for held in (relations(one.box, other.box) for one in group for other in landmarks or ()):
            if relation not in held:
                yield f"expected {name} {relation} target, found {' and '.join(held)} target"


def summarize(records: Sequence[Record], correct: Sequence[bool]) -> dict[str, float]:
    """Share of correct pictures of each task and, as "overall", the unweighted mean of the tasks."""
    tasks = _by_task(records, correct)
    score = {task: float(np.mean([ok for _, ok in pictures])) for task, pictures in tasks.items()}
    return score | {"overall": float(np.mean(list(score.values())))}


def standard_errors(records: Sequence[Record], correct: Sequence[bool]) -> dict[str, float]:
    """The standard error of each figure of `summarize`; pictures of one prompt are not independent, prompts are.

    A task of a single prompt has none, and then there is none of "overall".
    """
    errors: dict[str, float] = {}
    tasks = _by_task(records, correct)
    for task, pictures in tasks.items():
        means = [np.mean(answers) for answers in _by_prompt(pictures).values()]
        if len(means) > 1:
            errors[task] = float(np.std(means, ddof=1) / np.sqrt(len(means)))
    if len(errors) < len(tasks):
        return errors
    return errors | {"overall": float(np.sqrt(np.sum(np.square(list(errors.values())))) / len(errors))}


def prompts_solved(records: Sequence[Record], correct: Sequence[bool]) -> float:
    """Share of the prompts of which at least one picture is correct."""
    return float(np.mean([any(answers) for answers in _by_prompt(zip(records, correct, strict=True)).values()]))


def _by_task(records: Sequence[Record], correct: Sequence[bool]) -> dict[str, list[tuple[Record, bool]]]:
    """The records and answers of each task; GenEval's own first, in its order."""
    tags = dict.fromkeys(record["tag"] for record in records)
    order = [*(task for task in TASKS if task in tags), *(tag for tag in tags if tag not in TASKS)]
    pairs = list(zip(records, correct, strict=True))
    return {task: [(record, ok) for record, ok in pairs if record["tag"] == task] for task in order}


def _by_prompt(pictures: Iterable[tuple[Record, bool]]) -> dict[str, list[bool]]:
    answers: dict[str, list[bool]] = {}
    for record, ok in pictures:
        answers.setdefault(json.dumps(record, sort_keys=True), []).append(ok)
    return answers
