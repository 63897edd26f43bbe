"""Pictures of captions: a random scene that shows what a caption asks for, and nothing else."""

import math
from collections.abc import Sequence

import numpy as np

from apexgen.scenes.prompts import Caption, Request
from apexgen.scenes.world import COLORS, SIZE, Figure, Scene, render

MARGIN, GAP = 1.5, 3.0  # px to the border, px between two figures
DIRECTIONS = {"right of": 0.0, "below": 0.5, "left of": 1.0, "above": 1.5}  # half turns


def draw_scene(caption: Caption, random: np.random.Generator) -> Scene:
    """Draw a scene for a caption: places, sizes, tints and unnamed colors at random.

    Radii are U(7, 11) px for one or two figures, U(6, 8.5) for more; their circles keep 3 px apart. Of "a ring and a
    cross" the ring is further left: things are named in the order in which they are read. Of "three rings" one is in
    each third of the width: things are counted in that order too.
    """
    figures: tuple[Figure, ...] | None = None
    while figures is None:
        figures = _place(caption.requests, random)
    grey = random.uniform(0.04, 0.2)
    background = tuple(float(v) for v in np.clip(grey + random.uniform(-0.03, 0.03, 3), 0, 1))
    tints = tuple(tuple(float(v) for v in random.uniform(-0.04, 0.04, 3)) for _ in figures)
    return Scene(figures, background, tints)  # type: ignore[arg-type]


def _place(requests: tuple[Request, ...], random: np.random.Generator) -> tuple[Figure, ...] | None:
    """One attempt at placing every figure; None if it did not fit."""
    total = sum(request.count for request in requests)
    low, high = (7.0, 11.0) if total <= 2 else (6.0, 8.5)
    figures: list[Figure] = []
    for request in requests:
        color = request.color or str(random.choice(list(COLORS)))
        for index in range(request.count):
            radius = random.uniform(low, high)
            if request.relation:
                x, y = _beside(figures[0], request.relation, random)
            else:
                x, y = _anywhere(radius, index, request.count, random)
            figure = Figure(request.shape, color, x, y, radius)
            if not _fits(figure, figures):
                return None
            figures.append(figure)
    pair = len(requests) > 1 and requests[1].relation is None
    return None if pair and figures[0].x > figures[1].x else tuple(figures)


def _anywhere(radius: float, index: int, count: int, random: np.random.Generator) -> tuple[float, float]:
    """A point with room for the figure, in strip `index` of `count` equal ones from left to right."""
    low, high = radius + MARGIN, SIZE - radius - MARGIN
    return low + (high - low) * (index + random.uniform()) / count, random.uniform(low, high)


def _beside(landmark: Figure, relation: str, random: np.random.Generator) -> tuple[float, float]:
    """A point in the named direction, within 27 degrees of it: no relation is ambiguous."""
    angle = math.pi * (DIRECTIONS[relation] + random.uniform(-0.15, 0.15))
    distance = random.uniform(18, 44)
    return landmark.x + distance * math.cos(angle), landmark.y + distance * math.sin(angle)


def _fits(figure: Figure, others: list[Figure]) -> bool:
    low, high = figure.radius + MARGIN, SIZE - figure.radius - MARGIN
    inside = low <= figure.x <= high and low <= figure.y <= high
    return inside and all(math.hypot(figure.x - o.x, figure.y - o.y) >= figure.radius + o.radius + GAP for o in others)


def draw_pictures(captions: Sequence[Caption], seed: int) -> np.ndarray:
    """A fresh scene of each caption, drawn: (len(captions), 64, 64, 3) float32 in [0, 1]."""
    random = np.random.default_rng(seed)
    return np.stack([render(draw_scene(caption, random)) for caption in captions])
