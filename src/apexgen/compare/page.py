"""What a contest came to: a table for the terminal, compare.json, and one page that needs no other file."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.table import Table

from apexgen.report.page import write_whole

WIDTH, HEIGHT = 640, 320  # of the chart, in SVG units
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # told apart by all


def table(report: dict[str, Any]) -> Table:
    """A line for each contestant, best in one step first; mean and deviation over seeds."""
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("", "steps", "cost", "distance @1", "right @1", "modes @1", "@4", "@16"):
        drawn.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name, entry in ranked(report):
        nfe = entry["nfe"]
        cells = [spread(nfe["1"][key]) for key in ("distance", "right", "modes")]
        later = [spread(nfe[steps]["distance"]) if steps in nfe else "-" for steps in ("4", "16")]
        cost = entry.get("evaluations_per_step")
        drawn.add_row(name, f"{entry['steps']:,}", f"{cost:.1f}" if cost else "-", *cells, *later)
    return drawn


def ranked(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The teacher, then the contestants by their distance in one step."""
    others = [(name, entry) for name, entry in report.items() if name != "teacher"]
    return [("teacher", report["teacher"]), *sorted(others, key=lambda item: item[1]["nfe"]["1"]["distance"][0])]


def spread(measured: list[float]) -> str:
    """A mean, and the deviation over seeds where there is one."""
    mean, deviation = measured
    return f"{mean:.3f} ± {deviation:.3f}" if deviation else f"{mean:.3f}"


def write(folder: Path, report: dict[str, Any], title: str) -> None:
    """compare.json and compare.html in the folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = Environment(loader=PackageLoader("apexgen.compare", "."), autoescape=True, undefined=StrictUndefined)
    pages.filters["spread"] = spread
    page = pages.get_template("compare.html.jinja").render(
        title=title, rows=ranked(report), lines=lines(report), width=WIDTH, height=HEIGHT
    )
    for name, content in (("compare.json", json.dumps(report, indent=1) + "\n"), ("compare.html", page)):
        write_whole(folder / name, content.encode())


def lines(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Each contestant's distance against its evaluations, as points on the chart; the farthest is at the top."""
    students = [item for item in ranked(report) if item[0] != "teacher"]
    steps = list(students[0][1]["nfe"])
    top = max(entry["nfe"][step]["distance"][0] for _, entry in students for step in steps)
    drawn = []
    for index, (name, entry) in enumerate(students):
        heights = [HEIGHT * (1 - entry["nfe"][step]["distance"][0] / top) for step in steps]
        across = [WIDTH * k / (len(steps) - 1) for k in range(len(steps))]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, heights, strict=True))
        dashes = "6 4" if index >= len(COLORS) else "none"
        drawn.append({"name": name, "points": points, "color": COLORS[index % len(COLORS)], "dashes": dashes})
    return drawn
