"""What a contest came to: a table for the terminal and for documents, compare.json, and one page of its own."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.table import Table

from apexgen.compare.contest import World
from apexgen.files import write_whole
from apexgen.report.curves import chart


def cells(report: dict[str, Any], world: World) -> list[list[str]]:
    """The table's header, then a line for each contestant, best in one step first; mean and deviation over seeds."""
    first, second, *_ = world.measures
    rows = [["", "cost", "memory", f"{first} @1", f"{second} @1", f"{first} @4"]]
    for name, entry in ranked(report, world):
        nfe = entry["nfe"]
        said = [nfe["1"][first], nfe["1"][second], nfe["4"][first] if "4" in nfe else None]
        costs = [f"{entry[key]:.1f}" if key in entry else "-" for key in ("evaluations_per_step", "memory")]
        rows.append([name, *costs, *(spread(measured) if measured else "-" for measured in said)])
    return rows


def table(report: dict[str, Any], world: World) -> Table:
    """The table for a terminal of 80 columns."""
    header, *rows = cells(report, world)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in header:
        width = 11 if "@" in name else None  # of a mean and its deviation
        drawn.add_column(name, justify="right" if name else "left", no_wrap=True, min_width=width)
    for row in rows:
        drawn.add_row(*row)
    return drawn


def markdown(report: dict[str, Any], world: World) -> str:
    """The table for a document."""
    header, *rows = cells(report, world)
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def ranked(report: dict[str, Any], world: World) -> list[tuple[str, dict[str, Any]]]:
    """The teacher, then the contestants by the world's first measure in one step."""
    key = next(iter(world.measures))
    others = [(name, entry) for name, entry in report.items() if name != "teacher"]
    others.sort(key=lambda item: item[1]["nfe"]["1"][key][0], reverse=world.higher_is_better)
    return [("teacher", report["teacher"]), *others]


def curves_of(report: dict[str, Any], world: World) -> dict[str, list[tuple[str, dict[float, float]]]]:
    """Each chart's curves: the first measure by what is spent on sampling, on training, and by the diversity kept."""
    key, varied = next(iter(world.measures)), world.diversity
    (_, teacher), *students = ranked(report, world)
    steps, best = list(teacher["nfe"].items())[-1]
    ends = [(name, entry["nfe"]["1"]) for name, entry in students] + [(f"teacher, {steps} steps", best)]
    return {
        f"{key} against steps of sampling": [
            (name, {float(steps): said[key][0] for steps, said in entry["nfe"].items()}) for name, entry in students
        ],
        f"{key} in one step against evaluations spent on training": [
            (name, {float(spent): mean for spent, (mean, _) in entry["training"].items()}) for name, entry in students
        ],
        f"{key} in one step against {varied}": [(name, {said[varied][0]: said[key][0]}) for name, said in ends],
    }


def spread(measured: list[float]) -> str:
    """A mean, and the deviation over seeds where there is one; of what has run away, the order of magnitude."""
    mean, deviation = measured
    if abs(mean) >= 100:
        return f"{mean:.0e}"
    return f"{mean:.3f}±{deviation:.3f}" if deviation else f"{mean:.3f}"


def write(folder: Path, report: dict[str, Any], world: World) -> None:
    """compare.json, compare.md and compare.html in the folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = Environment(loader=PackageLoader("apexgen.compare", "."), autoescape=True, undefined=StrictUndefined)
    pages.filters["spread"] = spread
    page = pages.get_template("compare.html.jinja").render(
        world=type(world).__doc__,
        measures=world.measures,
        rows=ranked(report, world),
        charts={title: chart(title, curves) for title, curves in curves_of(report, world).items()},
    )
    files = {
        "compare.json": json.dumps(report, indent=1) + "\n",
        "compare.md": markdown(report, world),
        "compare.html": page,
    }
    for name, content in files.items():
        write_whole(folder / name, content.encode())
