"""Aspect buckets: the sizes of about one area that a model draws, and the one nearest to a picture's shape."""

import math
from collections.abc import Sequence

from apexgen.data.picture import opened_picture
from apexgen.size import Size

ORIENTATION = 0x0112  # of EXIF; from 5 on the picture lies on its side


def bucket_sizes(own: Size, multiple: int, aspect: float, largest: int | None = None) -> list[Size]:
    """The model's own size, and those of about its area whose sides are multiples of `multiple`, the squarest first.

    aspect: the largest ratio of the longer side to the shorter, 1 for the own size alone. largest: a side, px.
    """
    if aspect == 1:
        return [own]
    found, area = {own}, own.height * own.width
    for short in range(multiple, math.isqrt(area) + 1, multiple):
        long = round(area / short / multiple) * multiple
        if long <= aspect * short and (largest is None or long <= largest):
            found |= {Size(short, long), Size(long, short)}
    return sorted(found, key=lambda sides: (abs(_tallness(sides)), sides))


def nearest_size(sides: Size, sizes: Sequence[Size]) -> Size:
    """The size whose shape is the nearest to a picture's: the least of it is cut away."""
    return min(sizes, key=lambda size: abs(_tallness(size) - _tallness(sides)))


def _tallness(sides: Size) -> float:
    return math.log(sides[0] / sides[1])


def picture_sides(stored: bytes) -> Size:
    """The height and width of a stored picture as it is looked at, by its header alone. ValueError for none."""
    with opened_picture(stored) as opened:
        turned = opened.getexif().get(ORIENTATION, 1) >= 5
        return Size(opened.width, opened.height) if turned else Size(opened.height, opened.width)
