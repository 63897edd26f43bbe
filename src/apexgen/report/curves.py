"""Named curves in one chart: inline SVG with axes and a key, which any page may hold."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

WIDTH, HEIGHT = 640, 320  # of a chart, in SVG units
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # told apart by all


def chart(title: str, curves: list[tuple[str, dict[float, float]]]) -> Markup:
    """The chart of curves x -> y, both axes from 0 to the largest value."""
    pages = Environment(loader=PackageLoader("apexgen", "report"), autoescape=True, undefined=StrictUndefined)
    page = pages.get_template("curves.html.jinja")
    return Markup(page.render(title=title, width=WIDTH, height=HEIGHT, **points(curves)))


def points(curves: list[tuple[str, dict[float, float]]]) -> dict[str, Any]:
    """Each curve as the points of an SVG line; and the values where the axes end."""
    across = max(x for _, curve in curves for x in curve)
    top = max(max(curve.values()) for _, curve in curves) or 1.0
    drawn = []
    for index, (name, curve) in enumerate(curves):
        line = " ".join(f"{WIDTH * x / across:.1f},{HEIGHT * (1 - y / top):.1f}" for x, y in curve.items())
        dashes = "6 4" if index >= len(COLORS) else "none"
        drawn.append({"name": name, "points": line, "color": COLORS[index % len(COLORS)], "dashes": dashes})
    return {"lines": drawn, "across": across, "top": top}
