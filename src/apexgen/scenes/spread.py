"""How varied figures are: what a score cannot see, such as every circle in the same place."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import pdist

from apexgen.scenes.score import Found


def spread(found: Sequence[list[Found]], prompts: Sequence[str] | None = None) -> dict[str, float]:
    """Standard deviations of the figures of single-figure tasks, in shares of the picture's side.

    x, y: of the figure's centre; size: of the square root of its box's area; pairwise: the mean
    distance between the centres in two pictures of the same prompt (0 where no prompt has two).
    The data's are about 0.13, 0.12, 0.038 and 0.23. Collapse: a generator that gives a prompt the
    same picture whatever the noise has pairwise 0, while x and y may stay if each prompt has a
    place of its own; one drawn toward the mean picture is smaller in all four.

    found: the figures of each picture; one that does not hold exactly one figure does not count.
    prompts: of each picture, to pair them by; without it all are taken to be of one prompt.
    """
    groups: dict[str, list[Found]] = defaultdict(list)
    for figures, prompt in zip(found, prompts or [""] * len(found), strict=True):
        if len(figures) == 1:
            groups[prompt].append(figures[0])
    alone = [figure for group in groups.values() for figure in group]
    if not alone:
        return {"x": 0.0, "y": 0.0, "size": 0.0, "pairwise": 0.0}
    x, y = np.array([figure.center for figure in alone]).std(axis=0)
    size = np.std([np.sqrt(np.prod(figure.extent)) for figure in alone])
    distances = np.concatenate([pdist([figure.center for figure in g]) for g in groups.values()])
    pairwise = distances.mean() if distances.size else 0.0
    return {"x": float(x), "y": float(y), "size": float(size), "pairwise": float(pairwise)}


def color_variety(found: Sequence[list[Found]]) -> float:
    """How often two pictures differ in color: 1 - sum n_k (n_k - 1) / (N (N - 1)), n_k pictures of color k.

    Of pictures whose prompts leave the color open; the data's is 5/6, one color for all is 0. A picture's color is
    its first figure's; pictures without a figure do not count. Unbiased (Simpson, 1949); 0 below two pictures.
    """
    counts = Counter(figures[0].color for figures in found if figures)
    total = counts.total()
    same = sum(count * (count - 1) for count in counts.values())
    return 1 - same / (total * (total - 1)) if total > 1 else 0.0
