"""What is in a picture: detections of a class, and which of them count by GenEval's thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Detection:
    """One thing found."""

    box: tuple[float, float, float, float]  # left, top, right, bottom, in pixels
    score: float
    mask: np.ndarray | None = None  # (H, W) bool, where the detector makes one


Found = dict[str, list[Detection]]  # by class


class Detector(Protocol):
    """A judge of what is in a picture."""

    name: str  # in full

    def detect(self, picture: Image.Image, wanted: Sequence[str], least: float) -> Found:
        """All detections with a score above `least`; of the classes `wanted`, others may be there too."""
        ...


@dataclass(frozen=True)
class Selection:
    """Which detections count: the official values of Mask2Former."""

    threshold: float = 0.3
    counting_threshold: float = 0.9  # of records with the tag "counting"
    max_objects: int = 16  # of a class
    max_overlap: float = 1.0  # of two boxes of a class, intersection over union; 1 is any

    def least(self, tag: str) -> float:
        """The score above which a detection counts."""
        return self.counting_threshold if tag == "counting" else self.threshold

    def select(self, found: Mapping[str, Sequence[Detection]], tag: str) -> Found:
        """The surest first, at most `max_objects`, none that overlaps a surer one too much; classes without any left
        out."""
        kept = {name: self._of_class(things, self.least(tag)) for name, things in found.items()}
        return {name: things for name, things in kept.items() if things}

    def _of_class(self, things: Sequence[Detection], least: float) -> list[Detection]:
        order = np.argsort([thing.score for thing in things])[::-1]
        left = [things[index] for index in order if is_above(things[index].score, least)][: self.max_objects]
        kept: list[Detection] = []
        while left:
            first = left.pop(0)
            kept.append(first)
            if self.max_overlap < 1:
                left = [thing for thing in left if overlap(first.box, thing.box) < self.max_overlap]
        return kept


def is_above(score: float, least: float) -> bool:
    """Whether a score counts: compared in float32, as networks tell scores and GenEval compares them."""
    return bool(np.float32(score) > np.float32(least))


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes, whose ends are pixels that belong to them, as in GenEval."""

    def area(box: Sequence[float]) -> float:
        return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)

    common = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area(a) + area(b) - common
    return common / union if union else 0.0
