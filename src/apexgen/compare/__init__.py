"""Every objective on equal terms, in a world small enough to repeat: `compare` runs the contest and reports it."""

from pathlib import Path
from typing import Any

from rich.console import Console

from apexgen.compare.contest import World, contest
from apexgen.compare.page import table, write
from apexgen.compare.plane import Plane
from apexgen.compare.points import WORLDS
from apexgen.compare.scenes import Scenes
from apexgen.compare.terms import Terms


def compare(terms: Terms, folder: Path, console: Console) -> dict[str, Any]:
    """Hold a contest, print its table, and write compare.json, .md and .html into the folder; returns the report.

    Raises ValueError, before anything is trained, for a contestant that is described wrongly or a budget too small.
    """
    contestants, budgets = terms.objectives(), terms.budgets()
    world = _open(terms, folder, console)

    def keep(so_far: dict[str, Any]) -> None:
        write(folder, so_far, world)

    report = contest(world, contestants, budgets, range(1, terms.seeds + 1), console.print, keep)
    console.print(table(report, world))
    console.print(f"report: {folder / 'compare.html'}")
    return report


def _open(terms: Terms, folder: Path, console: Console) -> World:
    if terms.world == "scenes":
        return Scenes(folder, terms.train, terms.records, terms.per_task, console)
    return Plane(WORLDS[terms.world](), terms.teacher_steps)
