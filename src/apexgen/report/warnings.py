"""What a reader of a run's numbers should be warned of: collapse, lost variety, an invisible shift, broken steps."""

import math

import numpy as np
from PIL import Image

from apexgen.objectives import build_objective
from apexgen.report.folder import Told
from apexgen.report.grid import cells

COLLAPSED, LESS = 0.25, 0.75  # parts of the data's, or the teacher's, spread
PREVIEWED = 4  # columns of a preview: the teacher, and the student in 1, 2 and 4 steps


def warnings(run: Told) -> list[str]:
    """A sentence for each thing that is wrong, the worst first; none where all is well."""
    return [*_variety(run), *map(_sentence, run.record.get("warnings", [])), *_steps(run)]


def _variety(run: Told) -> list[str]:
    """Of the pictures of one prompt where they were judged, else while it trained; else of the newest preview."""
    report = run.scores
    student = next(iter(report.get("student", {}).values()), {}).get("spread", {}).get("pairwise")
    known = {name: report.get(name, {}).get("spread", {}).get("pairwise") for name in ("data", "teacher")}
    if student is not None and any(known.values()):
        shares = {name: student / other for name, other in known.items() if other}
        return _lost(shares, "Two pictures of a prompt, drawn in one step, differ")
    checked = [line for line in run.metrics if "one_step_diversity" in line and line["step"] > _warm_up(run)]
    if checked:
        share, step = checked[-1]["one_step_diversity"], checked[-1]["step"]
        return _lost({"teacher": share}, f"At step {step} two samples of a prompt, drawn in one step, differ")
    return _previews(run)


def _lost(shares: dict[str, float], what: str) -> list[str]:
    """The worse of what is wrong with a student's variety, in parts of the data's or the teacher's."""
    for word, least, names in (
        ("Collapse", COLLAPSED, ("data", "teacher")),
        ("Diversity loss", LESS, ("teacher", "data")),
    ):
        for name in names:
            if name in shares and shares[name] < least:
                return [f"{word}: {what[0].lower()}{what[1:]} by {shares[name]:.0%} of what the {name}'s do."]
    return []


def _previews(run: Told) -> list[str]:
    """Until its objective has warmed up, a student is as it began, and all it draws in one step is alike."""
    if not run.previews or run.previews[-1][0] <= _warm_up(run):
        return []
    step, file = run.previews[-1]
    with Image.open(file) as grid:
        drawn = cells(np.asarray(grid.convert("RGB"), dtype=np.float32) / 255, PREVIEWED)
    if drawn is None or len(drawn[0]) < 3:
        return []
    teacher, student = (float(column.std(0).mean()) for column in drawn[:2])
    if student >= COLLAPSED * teacher:
        return []
    return [
        f"Collapse: in the preview of step {step} the student's pictures of different prompts, drawn in one step, "
        f"differ by {student / teacher:.0%} of what the teacher's do."
    ]


def _warm_up(run: Told) -> int:
    """Steps that only prepare; none where this version doesn't know the objective."""
    fields = {key.removeprefix("objective."): said for key, said in run.config.items() if key.startswith("objective.")}
    try:
        return build_objective(str(fields.pop("name", "apex")), fields).least_steps
    except ValueError:
        return 0


def _steps(run: Told) -> list[str]:
    skipped = [line["step"] for line in run.metrics if "not_finite" in line]
    broken = [line["step"] for line in run.metrics if any(_is_broken(value) for value in line.values())]
    said = {"Skipped, since a loss or gradient was not finite": skipped, "Not finite in metrics.jsonl": broken}
    return [
        f"{what}: {len(steps)} of {run.step} steps ({', '.join(map(str, steps[:5]))}{', ...' * (len(steps) > 5)})."
        for what, steps in said.items()
        if steps
    ]


def _is_broken(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _sentence(line: str) -> str:
    return line[:1].upper() + line[1:].rstrip(".") + "."
