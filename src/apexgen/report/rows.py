"""The rows of a report's table: who drew, in how many steps, how well, how fast, how varied."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

SHORT = {
    "single_object": "one",
    "two_object": "two",
    "counting": "cnt",
    "colors": "col",
    "position": "pos",
    "color_attr": "attr",
    "overall": "mean",
    "pairwise": "pair",
    "color": "hue",
}  # as narrow as a terminal needs


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str  # such as "student@1"
    note: str  # what the name does not say
    score: dict[str, float]  # each task, and "overall"; shares of 1
    seconds: float | None  # per image
    spread: dict[str, float]  # deviations, in shares of the picture's side
    error: dict[str, float]  # standard errors of the score
    n: int | None  # pictures scored


def rows(report: dict[str, Any]) -> list[Row]:
    """The rows of a report, in reading order; what it does not hold is left out."""
    return [
        Row(
            name,
            note,
            entry.get("score", {}),
            entry.get("seconds_per_image"),
            entry.get("spread", {}),
            entry.get("error", {}),
            entry.get("n"),
        )
        for name, note, entry in _entries(report)
    ]


def _entries(report: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if teacher := report.get("teacher"):
        yield f"teacher@{teacher['steps']}", f"guidance {teacher['guidance']:g}", teacher
    if teacher_1 := report.get("teacher_1"):
        yield "teacher@1", "not distilled", teacher_1
    for steps, entry in sorted(report.get("student", {}).items(), key=lambda item: int(item[0])):
        yield f"student@{steps}", "", entry
    for form, entries in report.get("ablation", {}).items():
        for steps, entry in entries.items():
            yield f"{form}@{steps}", "ablation", entry
    if data := report.get("data"):
        yield "data", "true pictures", data


def keys(lines: list[Row], field: str) -> list[str]:
    """The columns of "score" or "spread", in the order they first come up."""
    return list(dict.fromkeys(key for row in lines for key in getattr(row, field)))


def table(report: dict[str, Any]) -> Table:
    """The report as a table for the terminal, 80 characters wide with six tasks; shares in percent."""
    lines = rows(report)
    tasks, spreads = keys(lines, "score"), keys(lines, "spread")
    drawn = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    drawn.add_column("", no_wrap=True)
    for task in tasks:
        style = "bold" if task == "overall" else None
        drawn.add_column(SHORT.get(task, task), justify="right", style=style)
    drawn.add_column("ms", justify="right")  # a picture
    for name in spreads:
        drawn.add_column(SHORT.get(name, name), justify="right", style="dim")
    for row in lines:
        cells = [
            *(percent(row.score.get(task)) for task in tasks),
            "-" if row.seconds is None else f"{1000 * row.seconds:#.3g}".rstrip("."),
            *(percent(row.spread.get(name)) for name in spreads),
        ]
        drawn.add_row(row.name, *cells, style="green" if row.name == "student@1" else None)
        if row.name == "student@1" and "overall" in row.error:
            drawn.caption = f"{row.name}: mean ± {percent(row.error['overall'])}, the standard error, n = {row.n}"
    return drawn


def share(value: float | None) -> str:
    """A share of 1 with three digits; a dash for what was not measured."""
    return "-" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share of 1 as a percentage with three digits."""
    return "-" if value is None else f"{100 * value:#.3g}".rstrip(".")


def duration(seconds: float | None) -> str:
    """Seconds, or milliseconds below one, with three digits."""
    if seconds is None:
        return "-"
    value, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
