"""The embedded world: coloured shapes on a dark ground, drawn exactly from a description.

A Scene is a list of figures on a background; `render` turns it into a picture by signed distances,
so edges are anti-aliased and every picture is known to the last pixel. Lengths are in pixels of a
64 x 64 picture.
"""

from dataclasses import dataclass

import numpy as np

SIZE = 64  # side of a picture, px
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 45, 45),
    "yellow": (245, 220, 60),
    "green": (50, 180, 75),
    "blue": (55, 105, 240),
    "purple": (155, 65, 195),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")


@dataclass(frozen=True)
class Figure:
    """One shape: its centre (x right, y down) and its radius in pixels."""

    shape: str
    color: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """What a picture holds."""

    figures: tuple[Figure, ...]
    background: tuple[float, float, float]  # RGB in [0, 1]
    tints: tuple[tuple[float, float, float], ...]  # added to each figure's color, RGB


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance in px (negative inside) of points x, y to a shape centred at the origin."""
    across, down = np.abs(x), np.abs(y)
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(across, down) - 0.88 * radius
    if shape == "triangle":  # upright, its bounding box centred on the origin
        low = y - 0.28 * radius
        return np.maximum(low, 0.866 * across - 0.5 * low) - 0.6 * radius
    if shape == "cross":
        wide = np.maximum(across - radius, down - 0.35 * radius)
        return np.minimum(wide, np.maximum(across - 0.35 * radius, down - radius))
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.76 * radius) - 0.24 * radius
    raise ValueError(f"unknown shape {shape!r}: use one of {', '.join(SHAPES)}")


def render(scene: Scene, size: int = SIZE) -> np.ndarray:
    """Draw a scene: (size, size, 3) float32 in [0, 1]."""
    unit = SIZE / size
    y, x = (np.mgrid[:size, :size] + 0.5) * unit
    picture = np.broadcast_to(np.float32(scene.background), (size, size, 3)).copy()
    for figure, tint in zip(scene.figures, scene.tints, strict=True):
        distance = signed_distance(figure.shape, x - figure.x, y - figure.y, figure.radius)
        cover = np.clip(0.5 - distance / unit, 0, 1)[..., None]
        color = np.clip(np.array(COLORS[figure.color]) / 255 + tint, 0, 1)
        picture = picture * (1 - cover) + color * cover
    return picture.astype(np.float32)
