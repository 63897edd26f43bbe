"""Charts: what is logged lies where it should, on axes of round numbers."""

import re

import numpy as np
import pytest

from apexgen.report.axis import Axis
from apexgen.report.chart import charts, read_metrics
from apexgen.report.curves import COLORS, chart


def test_charts_pass_over_what_is_no_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": NaN, "b": 1, "s": "x"}\n[]\n{"step": 2, "a": 1, "b": 1, "s": "y"}\n{"st')
    (drawn,) = charts({"run": read_metrics(path)})
    (line,) = drawn.lines
    assert (drawn.name, line.first, line.last, drawn.across.high) == ("b", 1.0, 1.0, 2)
    assert "nan" not in line.points + line.band
    assert read_metrics(tmp_path / "none") == []


def test_a_chart_stays_small_and_inside():
    metrics = [{"step": step, "a": float(np.sin(step)) + 1000 * (step == 5)} for step in range(1, 5000)]
    (drawn,) = charts({"run": metrics})
    points = np.array([point.split(",") for point in drawn.lines[0].points.split()], dtype=float)
    assert len(points) == 100 and points.min() >= 0 and (points.max(axis=0) <= (300, 110)).all()
    assert drawn.up.high < 2  # one peak does not flatten the rest


def test_a_loss_that_falls_a_hundredfold_is_drawn_on_a_logarithmic_axis_and_a_steady_one_on_a_linear_one():
    falls = [{"step": step, "a": 10.0 ** (-2 * step / 100), "b": 1 + step / 100} for step in range(101)]
    told = {chart.name: chart for chart in charts({"run": falls})}
    assert told["a"].up.log and not told["b"].up.log
    heights = [float(point.split(",")[1]) for point in told["a"].lines[0].points.split()]
    assert np.diff(heights, n=2) == pytest.approx(0, abs=0.5)  # a straight line


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Axis(1, 1500), ["500", "1,000", "1,500"]),
        (Axis(-0.3, 0.31), ["-0.2", "0", "0.2"]),
        (Axis(2e-5, 7e-5), [f"{n}e-5" for n in range(2, 8)]),
        (Axis(0.9, 120, log=True), ["1", "10", "100"]),
        (Axis(1, 50, log=True), ["1", "2", "5", "10", "20", "50"]),
    ],
)
def test_an_axis_shows_round_numbers_where_they_lie(axis, ticks):
    assert [text for _, text in axis.ticks()] == ticks
    for share, text in axis.ticks():
        value = float(text.replace(",", ""))
        low, high = np.log([axis.low, axis.high]) if axis.log else (axis.low, axis.high)
        assert share == pytest.approx(((np.log(value) if axis.log else value) - low) / (high - low))


def test_more_curves_than_colors_are_told_apart_by_dashes_hollow_dots_and_names():
    drawn = chart("t", [(f"curve {index}", {float(index): 1.0}) for index in range(len(COLORS) + 1)])
    first, *_, last = re.findall(r"<circle.*?</circle>", drawn)
    assert "curve 0" in first and f"curve {len(COLORS)}" in last
    assert f'fill="{COLORS[0]}"' in first and 'fill="none"' in last and f'stroke="{COLORS[0]}"' in last
