"""Line charts of what a run logged, as the points of inline SVG."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 300, 110  # of the plot, in SVG units
BINS = 100  # points of a line: each the mean of its share of the steps, which smooths lightly


@dataclass(frozen=True)
class Chart:
    """One logged number over the steps."""

    name: str
    line: str  # SVG points of the means
    band: str  # SVG points around the least and the largest
    low: float  # values at the bottom and the top of the plot
    high: float
    last_step: int
    first: float  # means at both ends
    last: float


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; none when there is no file. A torn last line is passed over."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def charts(metrics: list[dict[str, float]]) -> list[Chart]:
    """A chart of every number logged besides step and seconds."""
    names = dict.fromkeys(key for line in metrics for key in line if key not in ("step", "seconds"))
    drawn = []
    for name in names:
        points = [(line["step"], line[name]) for line in metrics if _is_number(line.get(name))]
        if len(points) > 1:
            drawn.append(draw_chart(name, *np.array(points, dtype=float).T))
    return drawn


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def draw_chart(name: str, steps: np.ndarray, values: np.ndarray) -> Chart:
    """Bin, scale and draw; the scale leaves out the outermost percent so that one peak hides nothing."""
    groups = np.array_split(np.arange(len(steps)), min(BINS, len(steps)))
    means = np.array([values[group].mean() for group in groups])
    least, most = (np.array([end(values[group]) for group in groups]) for end in (np.min, np.max))
    low, high = np.percentile(values, [1, 99])
    low, high = min(low, means[-1]), max(high, means[-1])
    span = high - low or abs(high) or 1.0
    at = np.array([steps[group].mean() for group in groups])
    x = (at - at[0]) / (at[-1] - at[0] or 1) * WIDTH

    def place(y: np.ndarray) -> list[str]:
        down = HEIGHT * (1 - ((y - low) / span).clip(0, 1))
        return [f"{across:.1f},{height:.1f}" for across, height in zip(x, down, strict=True)]

    band = " ".join(place(most) + place(least)[::-1])
    ends = float(means[0]), float(means[-1])
    return Chart(name, " ".join(place(means)), band, low, low + span, int(steps[-1]), *ends)
