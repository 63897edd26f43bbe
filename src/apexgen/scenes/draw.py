"""Pictures of captions: a random scene that shows what a caption asks for, and nothing else."""

from collections.abc import Sequence

import numpy as np

from apexgen.scenes.prompts import Caption, Request
from apexgen.scenes.world import COLORS, Figure, Scene, render

MARGIN = 1.5  # px from a figure's circle to the border of its cell, so that two keep 3 px apart
Cell = tuple[int, int, int]  # left, top, side, px
CELLS = {  # of so many figures
    1: ((8, 8, 48),),
    2: ((0, 16, 32), (32, 16, 32)),
    3: ((0, 0, 32), (32, 0, 32), (16, 32, 32)),
    4: ((0, 0, 32), (32, 0, 32), (0, 32, 32), (32, 32, 32)),
}
BESIDE = {  # the same where a relation is named: the landmark's, then its neighbour's
    "right of": ((0, 16, 32), (32, 16, 32)),
    "left of": ((32, 16, 32), (0, 16, 32)),
    "below": ((16, 0, 32), (16, 32, 32)),
    "above": ((16, 32, 32), (16, 0, 32)),
}


def draw_scene(caption: Caption, random: np.random.Generator) -> Scene:
    """Draw a scene for a caption: places, sizes, tints and each unnamed color at random.

    Every figure is anywhere in a cell of its own. Alone it has the middle 48 px of the picture; several have 32 px
    each and stand as on dice: two side by side, the first named on the left, or as their relation says; three as two
    above one; four in a square. Radii are U(7, 11) px for one or two figures, U(6, 8.5) for more.
    """
    asked = [request for request in caption.requests for _ in range(request.count)]
    figures = tuple(
        _place(request, cell, len(asked), random) for request, cell in zip(asked, cells(asked), strict=True)
    )
    grey = random.uniform(0.04, 0.2)
    background = tuple(float(v) for v in np.clip(grey + random.uniform(-0.03, 0.03, 3), 0, 1))
    tints = tuple(tuple(float(v) for v in random.uniform(-0.04, 0.04, 3)) for _ in figures)
    return Scene(figures, background, tints)  # type: ignore[arg-type]


def cells(asked: Sequence[Request]) -> tuple[Cell, ...]:
    """Each figure's cell, one request a figure."""
    relation = asked[-1].relation
    return BESIDE[relation] if relation else CELLS[len(asked)]


def _place(request: Request, cell: Cell, count: int, random: np.random.Generator) -> Figure:
    """The figure of a request at a random point of its cell that has room for it."""
    color = request.color or str(random.choice(list(COLORS)))
    radius = random.uniform(7.0, 11.0) if count <= 2 else random.uniform(6.0, 8.5)
    left, top, side = cell
    low, high = radius + MARGIN, side - radius - MARGIN
    return Figure(request.shape, color, left + random.uniform(low, high), top + random.uniform(low, high), radius)


def draw_pictures(captions: Sequence[Caption], seed: int) -> np.ndarray:
    """A fresh scene of each caption, drawn: (len(captions), 64, 64, 3) float32 in [0, 1]."""
    random = np.random.default_rng(seed)
    return np.stack([render(draw_scene(caption, random)) for caption in captions])
