"""Aspect buckets: the sizes of about one area that a model draws, and the one nearest to a picture's shape."""

import math
from collections.abc import Sequence

Size = tuple[int, int]  # height, width, px


def bucket_sizes(size: int, multiple: int, aspect: float, largest: int | None = None) -> list[Size]:
    """Sizes of about size x size pixels, the square first, whose sides are multiples of `multiple`.

    aspect: the largest ratio of the longer side to the shorter. largest: the longest side, px.
    """
    found = {(size, size)}
    for short in range(multiple, size, multiple):
        long = round(size * size / short / multiple) * multiple
        if long <= aspect * short and (largest is None or long <= largest):
            found |= {(short, long), (long, short)}
    return sorted(found, key=lambda sides: (abs(_tallness(sides)), sides))


def nearest_size(sides: Size, sizes: Sequence[Size]) -> Size:
    """The size whose shape is the nearest to a picture's: the least of it is cut away."""
    return min(sizes, key=lambda size: abs(_tallness(size) - _tallness(sides)))


def _tallness(sides: Size) -> float:
    return math.log(sides[0] / sides[1])
