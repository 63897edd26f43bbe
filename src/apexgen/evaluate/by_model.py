"""The table that papers print: a row a model, a column a benchmark's chief figure, and under it who judged."""

from collections.abc import Sequence

from apexgen.evaluate.grid import Grid
from apexgen.evaluate.result import Result, by_protocol, cell, told_apart

SPEED = {"B parameters": "B parameters", "images/s": "images/s", "latency": "latency, s"}  # figure -> column
CHIEF = ("overall", "DPG", "AM", "all", "within")  # whichever of them a benchmark has, else its first figure
ASKED = ("DPG-Bench", "WISE legacy", "WISE Verified", "GenEval 2")  # any model may judge: a column says which


def models_table(results: Sequence[Result]) -> Grid:
    """Several results a model in one row; results of unlike judges or settings never share a column.

    A model is its weights and how it draws, by whatever name; by name alone where a result does not tell. The last of
    two results counts.
    """
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(identity(result), []).append(result)
    groups = by_protocol(results)
    columns = [(group, figure) for group in groups for figure in figures(group[0])]
    names = _names([(group[0], figure) for group, figure in columns])
    cells = [
        [own[0].model, str(own[0].evaluations or "-"), *(_cell(own, group[0], figure) for group, figure in columns)]
        for own in rows.values()
    ]
    notes = [_note(group[0], groups) for group in groups]
    return Grid("", ("model", "NFE", *names), cells, [*notes, *dict.fromkeys(n for r in results for n in r.notes)])


def identity(result: Result) -> str:
    """What must be equal for two results to be of one model."""
    drawn = result.drawn
    if "weights" not in drawn:
        return result.model
    return " ".join(str(drawn.get(name)) for name in ("weights", "drawer", "steps", "guidance", "size", "precision"))


def figures(result: Result) -> list[str]:
    """The figures of a benchmark that a table of several has room for."""
    if result.benchmark == "speed":
        return [name for name in SPEED if name in result.scores]
    return [next((name for name in CHIEF if name in result.scores), next(iter(result.scores)))]


def _names(columns: Sequence[tuple[Result, str]]) -> list[str]:
    """Each column's name, with a number where several have one."""
    plain = [SPEED[figure] if first.benchmark == "speed" else _headed(first) for first, figure in columns]
    return [
        f"{name} ({plain[: index + 1].count(name)})" if plain.count(name) > 1 else name
        for index, name in enumerate(plain)
    ]


def _headed(first: Result) -> str:
    return f"{first.benchmark}[judge={first.judge}]" if first.benchmark in ASKED else first.benchmark


def _cell(own: Sequence[Result], first: Result, figure: str) -> str:
    alike = [result for result in own if result.protocol == first.protocol]
    return cell(alike[-1], figure) if alike else "-"


def _note(first: Result, groups: Sequence[Sequence[Result]]) -> str:
    apart = "".join(f"; {name} = {value}" for name, value in told_apart(first, groups).items())
    return f"{first.benchmark}: {', '.join(figures(first))}, judged by {first.judge}{apart}"
