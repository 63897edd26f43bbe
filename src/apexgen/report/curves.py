"""Named curves in one chart: inline SVG with axes and a key, which any page may hold."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from apexgen.report.axis import fitting

WIDTH, HEIGHT = 360, 180  # of a chart, in SVG units: its numbers can be read on a phone
EVALUATIONS = "evaluations of the network"  # what most charts have across
DOTS = 12  # points of a curve, at most, that are shown one by one
Levels = dict[str, float]  # by name
COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "currentColor",
    "#999999",
)  # told apart by all


def chart(
    title: str, curves: list[tuple[str, dict[float, float]]], unit: str = "", levels: Levels | None = None
) -> Markup:
    """The chart of curves x -> y, from 0 to the largest value, or logarithmic where the values span much.

    unit: what x counts, said below the axis. levels: values of no x, each a dashed line that the key names, for a
    curve may run anywhere; with them the values start at 0.
    """
    pages = Environment(loader=PackageLoader("apexgen", "report"), autoescape=True, undefined=StrictUndefined)
    page = pages.get_template("curves.html.jinja")
    return Markup(page.render(title=title, unit=unit, width=WIDTH, height=HEIGHT, **points(curves, levels or {})))


def points(curves: list[tuple[str, dict[float, float]]], levels: Levels | None = None) -> dict[str, Any]:
    """Each curve as the points of an SVG line, and where they are few as dots; the levels' heights; and both axes."""
    xs, ys = ([value for _, curve in curves for value in side(curve)] for side in (dict.keys, dict.values))
    levels = levels or {}
    lowest, highest = min([0.0, *ys] if levels else ys), max([*ys, *levels.values()])
    across, up = fitting(min(xs), max(xs), 0.0), fitting(lowest, highest, 0.0)
    drawn = []
    for index, (name, curve) in enumerate(curves):
        places = zip(across.places(curve.keys()), up.places(curve.values()), strict=True)
        at = [(f"{WIDTH * x:.1f}", f"{HEIGHT * (1 - y):.1f}") for x, y in places]
        drawn.append({
            "name": name,
            "points": " ".join(",".join(point) for point in at),
            "dots": at if len(at) <= DOTS else [],
            "color": COLORS[index % len(COLORS)],
            "dashes": "6 4" if index >= len(COLORS) else "none",
        })  # fmt: skip
    heights = zip(levels, up.places(levels.values()), strict=True)
    held = [{"name": name, "y": f"{HEIGHT * (1 - place):.1f}"} for name, place in heights]
    return {"lines": drawn, "levels": held, "across": across, "up": up}
