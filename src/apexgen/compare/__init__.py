"""Every objective on equal terms, in a world small enough to repeat: `compare` runs the contest and reports it."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from apexgen.compare.contest import World, contest
from apexgen.compare.page import table, write
from apexgen.compare.plane import Plane
from apexgen.compare.points import WORLDS
from apexgen.compare.scenes import Scenes
from apexgen.compare.terms import Terms
from apexgen.files import check_folder, write_whole

TERMS = "terms.json"  # of those in the report: they are not trained again


def compare(terms: Terms, folder: Path, console: Console) -> dict[str, Any]:
    """Hold a contest, print its table, and write compare.json, .md and .html into the folder; returns the report.

    Raises ValueError, before anything is trained, for a contestant that is described wrongly, a budget too small, or a
    folder that can't be written to or holds another world's contest.
    """
    contestants, budgets = terms.objectives(), terms.budgets()
    check_folder(folder, "--folder")
    _refuse_other_world(folder, terms.world)
    world = _open(terms, folder, console)

    done = read_done(folder, terms)

    def keep(so_far: dict[str, Any]) -> None:
        write(folder, so_far, world)
        write_whole(folder / TERMS, json.dumps({name: terms.of(name) for name in so_far if name != "teacher"}).encode())

    report = contest(world, contestants, budgets, range(1, terms.seeds + 1), console.print, keep, done)
    console.print(table(report, world))
    console.print(f"report: {folder / 'compare.html'}")
    return report


def read_done(folder: Path, terms: Terms) -> dict[str, Any]:
    """The entries of a folder's report whose contestants were trained and judged on these terms."""
    entries, said = _read(folder / "compare.json"), _read(folder / TERMS)
    return {name: entries[name] for name in terms.contestants if name in entries and said.get(name) == terms.of(name)}


def _read(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError:
        return {}  # broken by others: made anew
    return held if isinstance(held, dict) else {}


def _refuse_other_world(folder: Path, world: str) -> None:
    """ValueError where a folder's report, which would be replaced, is of another world."""
    for told in _read(folder / TERMS).values():
        if told["world"] != world:
            raise ValueError(
                f'{folder} holds a contest of world = "{told["world"]}"; write --folder {folder}-{world}, or another'
            )


def _open(terms: Terms, folder: Path, console: Console) -> World:
    if terms.world == "scenes":
        return Scenes(folder, terms.train, terms.records, terms.per_task, console)
    return Plane(WORLDS[terms.world](), terms.teacher_steps)
