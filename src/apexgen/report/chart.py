"""Line charts of what a run logged, as the points of inline SVG."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apexgen.report.axis import Axis, fitting

WIDTH, HEIGHT = 300, 110  # of the plot, in SVG units
BYTES, GIGA = "_bytes", 1e9  # how a number of bytes is called; it is shown in GB
BINS = 100  # points of a line: each the mean of its share of the steps, which smooths lightly


@dataclass(frozen=True)
class Line:
    """One run's number over the steps."""

    run: str
    number: int  # of the run, which chooses the color
    points: str  # SVG points of the means
    band: str  # SVG points around the least and the largest
    first: float  # means at both ends
    last: float


@dataclass(frozen=True)
class Chart:
    """One logged number of all runs that logged it."""

    name: str
    lines: list[Line]
    across: Axis  # steps
    up: Axis  # values
    unit: str = ""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none when there is no file. A torn last line is passed over."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def charts(runs: Mapping[str, list[dict[str, Any]]]) -> list[Chart]:
    """A chart of every number logged besides step and seconds, the runs over one another."""
    names = dict.fromkeys(key for lines in runs.values() for line in lines for key in line)
    drawn = []
    for name in names.keys() - {"step", "seconds", "records", "not_finite"}:
        curves = {}
        scale = GIGA if name.endswith(BYTES) else 1
        for number, (run, lines) in enumerate(runs.items()):
            points = [(line["step"], line[name] / scale) for line in lines if _is_number(line.get(name))]
            if len(points) > 1:
                curves[run, number] = np.array(points, dtype=float).T
        if curves:
            drawn.append(draw_chart(name, curves))
    order = list(names)
    drawn.sort(key=lambda chart: order.index(chart.name))
    return [replace(one, name=one.name.removesuffix(BYTES), unit="GB" * one.name.endswith(BYTES)) for one in drawn]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def draw_chart(name: str, curves: Mapping[tuple[str, int], np.ndarray]) -> Chart:
    """Bin, scale and draw curves (2, N) of steps and values.

    The scale leaves out each curve's outermost percent, so that one peak hides nothing; it is logarithmic where the
    rest spans much.
    """
    binned = {run: _bin(*curve) for run, curve in curves.items()}
    ends = [np.percentile(values, [1, 99]) for _, values in curves.values()]
    last = [means[-1] for _, means, _, _ in binned.values()]
    low, high = min(*last, *(end[0] for end in ends)), max(*last, *(end[1] for end in ends))
    up = fitting(low, high, low)
    across = Axis(min(steps[0] for steps, _ in curves.values()), max(steps[-1] for steps, _ in curves.values()))

    def place(at: np.ndarray, values: np.ndarray) -> list[str]:
        places = zip(across.places(at), up.places(values), strict=True)
        return [f"{WIDTH * x:.1f},{HEIGHT * (1 - y):.1f}" for x, y in places]

    lines = [
        Line(run, number, " ".join(place(at, means)), " ".join(place(at, most) + place(at, least)[::-1]),
             float(means[0]), float(means[-1]))
        for (run, number), (at, means, least, most) in binned.items()
    ]  # fmt: skip
    return Chart(name, lines, across, up)


def _bin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each share of the steps: its middle, and the values' mean, least and largest."""
    groups = np.array_split(np.arange(len(steps)), min(BINS, len(steps)))
    at, means = (np.array([numbers[group].mean() for group in groups]) for numbers in (steps, values))
    least, most = (np.array([end(values[group]) for group in groups]) for end in (np.min, np.max))
    return at, means, least, most
