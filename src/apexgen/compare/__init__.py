"""Every objective on equal terms, in a world small enough to repeat: `compare` runs the contest and reports it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from apexgen.compare.contest import contest
from apexgen.compare.contestants import CONTESTANTS
from apexgen.compare.page import table, write
from apexgen.compare.points import WORLDS
from apexgen.objectives.check import nearest


def compare(
    world: str, names: Sequence[str], budget: float, seeds: int, teacher_steps: int, folder: Path, console: Console
) -> dict[str, Any]:
    """Hold a contest, print its table, and write compare.json and compare.html into the folder; returns the report.

    names: contestants, all of them where empty. Raises ValueError, before anything is trained, for an unknown world or
    contestant, and for a number that is not positive.
    """
    for flag, number in (("--budget", budget), ("--seeds", seeds), ("--teacher-steps", teacher_steps)):
        if number <= 0:
            raise ValueError(f"{flag} must be positive, got {number:g}; write {flag} 1 or more")
    _known("--world", [world], list(WORLDS))
    _known("--objectives", names, list(CONTESTANTS))
    chosen = {name: CONTESTANTS[name] for name in names or CONTESTANTS}

    def keep(so_far: dict[str, Any]) -> None:
        write(folder, so_far, f"One-step objectives on the {world}")

    report = contest(WORLDS[world](), chosen, budget, range(1, seeds + 1), teacher_steps, console.print, keep)
    console.print(table(report))
    console.print(f"report: {folder / 'compare.html'}")
    return report


def _known(flag: str, given: Sequence[str], valid: Sequence[str]) -> None:
    for name in given:
        if name not in valid:
            raise ValueError(f"unknown {flag} {name!r}: write {flag} {nearest(name, valid)}; valid: {', '.join(valid)}")
