"""Read a picture back into figures, and score it by GenEval's rules.

Segmentation (nearer the figure's color than the ground's), color (nearest of the palette), shape
(overlap with the ideal masks) and relations are exact: no learned judge.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from apexgen.rules import faults, summarize
from apexgen.scenes.prompts import OTHER
from apexgen.scenes.world import COLORS, SHAPES, signed_distance

CONTRAST = 0.22  # least distance from the ground's color, largest channel, of a figure's pixel
LEAST_AREA = 0.004  # share of the picture; anything smaller is a speck
LEAST_OVERLAP = 0.72  # intersection over union with the ideal mask
TEMPLATE = 32  # side of the masks compared, px


@dataclass(frozen=True)
class Found:
    """A figure found in a picture.

    box: (left, top, right, bottom) in shares of the picture's sides.
    """

    shape: str
    color: str
    box: tuple[float, float, float, float]

    @property
    def center(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def extent(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return right - left, bottom - top


def parse(picture: np.ndarray) -> list[Found]:
    """Find the figures of a picture.

    picture: any array; (H, W, 3) uint8 or float in [0, 1] is what it understands. Grey, RGBA,
    empty, constant or non-finite pictures give what can be seen in them, or nothing; never an
    error.
    """
    image = _as_rgb(picture)
    if min(image.shape[:2]) < 8:
        return []
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    ground = np.median(border, axis=0)
    mask = _differs(image, ground) & _differs(_calm(_calm(image, 0), 1), ground)
    labels, count = ndimage.label(mask)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    return [
        _describe(image, ground, labels, index, window)
        for index, window in enumerate(ndimage.find_objects(labels), start=1)
        if areas[index] >= LEAST_AREA * mask.size
    ]


def _as_rgb(picture: np.ndarray) -> np.ndarray:
    array = np.asarray(picture)
    if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "biuf":
        return np.zeros((0, 0, 3), np.float32)
    image = np.nan_to_num(array, nan=0.0, posinf=1.0).clip(0, 255).astype(np.float32)
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    return np.clip(image / 255 if array.dtype.kind in "ui" else image, 0, 1)


def _differs(image: np.ndarray, ground: np.ndarray) -> np.ndarray:
    return (np.abs(image - ground) > CONTRAST).any(axis=2)


def _calm(image: np.ndarray, axis: int) -> np.ndarray:
    """Median of three pixels along an axis: speckle goes, anything two pixels wide stays."""
    calm = image.copy()
    pixels, out = np.moveaxis(image, axis, 0), np.moveaxis(calm, axis, 0)
    before, here, after = pixels[:-2], pixels[1:-1], pixels[2:]
    out[1:-1] = np.maximum(np.minimum(before, here), np.minimum(np.maximum(before, here), after))
    return calm


def _describe(
    image: np.ndarray, ground: np.ndarray, labels: np.ndarray, index: int, window: tuple[slice, ...]
) -> Found:
    """Name the figure of one label; its pixels are those nearer its color than the ground's."""
    grown = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in window)
    crop, core = image[grown], labels[grown] == index
    inner = ndimage.binary_erosion(core)
    color = np.median(crop[inner if inner.any() else core], axis=0)
    contrast = color - ground
    cover = (crop - ground) @ contrast / max(float(contrast @ contrast), 1e-6)
    region = (cover > 0.5) & ndimage.binary_dilation(core, np.ones((3, 3)))
    region = region if region.any() else core
    rows, columns = ndimage.find_objects(region.astype(int))[0]
    top, left = grown[0].start, grown[1].start
    height, width = labels.shape
    box = (
        (left + columns.start) / width,
        (top + rows.start) / height,
        (left + columns.stop) / width,
        (top + rows.stop) / height,
    )
    return Found(_classify(region[rows, columns]), _color_name(color), box)


def _color_name(color: np.ndarray) -> str:
    palette = np.array(list(COLORS.values())) / 255
    return list(COLORS)[int(np.square(palette - color).sum(axis=1).argmin())]


def _classify(region: np.ndarray) -> str:
    """The shape whose ideal mask, in the same box, overlaps most; OTHER when none does."""
    height, width = region.shape
    if not 0.6 < height / width < 1.6:
        return OTHER
    mask = _resize(region)
    overlaps = {name: (mask & ideal).sum() / (mask | ideal).sum() for name, ideal in _ideals().items()}
    best = max(overlaps, key=lambda name: overlaps[name])
    return best if overlaps[best] >= LEAST_OVERLAP else OTHER


def _resize(region: np.ndarray) -> np.ndarray:
    rows = ((np.arange(TEMPLATE) + 0.5) * region.shape[0] / TEMPLATE).astype(int)
    columns = ((np.arange(TEMPLATE) + 0.5) * region.shape[1] / TEMPLATE).astype(int)
    return region[np.ix_(rows, columns)]


@cache
def _ideals() -> dict[str, np.ndarray]:
    y, x = np.mgrid[-40:41, -40:41]
    masks = {}
    for shape in SHAPES:
        mask = signed_distance(shape, x, y, 30.0) < 0
        masks[shape] = _resize(mask[ndimage.find_objects(mask.astype(int))[0]])
    return masks


def is_correct(found: list[Found], metadata: dict) -> bool:
    """Whether the figures found satisfy a GenEval record: every include, no exclude."""
    by_class: dict[str, list[Found]] = {}
    for figure in found:
        by_class.setdefault(figure.shape, []).append(figure)
    return not faults(by_class, metadata, lambda _, figures: [figure.color for figure in figures])


def score(pictures: np.ndarray, records: list[dict]) -> dict[str, float]:
    """Score pictures (N, H, W, 3) against N GenEval records: accuracy per task and "overall"."""
    return summarize(records, [is_correct(parse(p), r) for p, r in zip(pictures, records, strict=True)])
