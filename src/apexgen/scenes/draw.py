"""Pictures of captions: a random scene that shows what a caption asks for, and nothing else."""

import math
from collections.abc import Sequence

import numpy as np

from apexgen.scenes.prompts import Caption, Request
from apexgen.scenes.world import COLORS, SIZE, Figure, Scene, render

MARGIN, GAP = 1.5, 3.0  # px to the border, px between two figures
CORNERS = {  # left upper ones, px, of the cells in which so many figures stand that no caption places
    2: ((0, 16), (32, 16)),
    3: ((0, 0), (32, 0), (16, 32)),
    4: ((0, 0), (32, 0), (0, 32), (32, 32)),
}
CELL = 32  # side of such a cell, px
DIRECTIONS = {"right of": 0.0, "below": 0.5, "left of": 1.0, "above": 1.5}  # half turns


def draw_scene(caption: Caption, random: np.random.Generator) -> Scene:
    """Draw a scene for a caption: places, sizes, tints and each unnamed color at random.

    Radii are U(7, 11) px for one or two figures, U(6, 8.5) for more; their circles keep 3 px apart. A figure alone, and
    two of which a caption says how they lie, are anywhere. Several else stand as on dice, each anywhere in a cell of
    32 px of its own: two side by side, three as two above one, four in a square; the first named is the left one.
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
    asked = [request for request in requests for _ in range(request.count)]
    low, high = (7.0, 11.0) if len(asked) <= 2 else (6.0, 8.5)
    cells = iter(_cells(asked))
    figures: list[Figure] = []
    for request in asked:
        color = request.color or str(random.choice(list(COLORS)))
        radius = random.uniform(low, high)
        if request.relation:
            x, y = _beside(figures[0], request.relation, random)
        else:
            x, y = _within(*next(cells), radius, random)
        figure = Figure(request.shape, color, x, y, radius)
        if not _fits(figure, figures):
            return None
        figures.append(figure)
    return tuple(figures)


def _cells(asked: list[Request]) -> list[tuple[int, int, int]]:
    """Where the figures that no relation places may stand, one after another: left, top, side."""
    if len(asked) == 1 or any(request.relation for request in asked):
        return [(0, 0, SIZE)]
    return [(left, top, CELL) for left, top in CORNERS[len(asked)]]


def _within(left: int, top: int, side: int, radius: float, random: np.random.Generator) -> tuple[float, float]:
    """A point of the cell with room for the figure."""
    low, high = radius + MARGIN, side - radius - MARGIN
    return left + random.uniform(low, high), top + random.uniform(low, high)


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
