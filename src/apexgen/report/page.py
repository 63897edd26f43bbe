"""The page of one run, or of several beside one another: it needs no other file and no network."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from apexgen.files import check_file, write_whole
from apexgen.report import chart, curves
from apexgen.report.folder import Told, differences, read_all
from apexgen.report.grid import picture_grid
from apexgen.report.rows import Row, duration, keys, rows, share
from apexgen.report.warnings import warnings

COMPARED = "compared.html"  # the page of several runs
FRAMES, WIDEST = 12, 720  # previews of a run on the page, and their width, px


def write_report(
    folder: Path, report: dict[str, Any], columns: dict[str, np.ndarray] | None, prompts: Sequence[str]
) -> None:
    """Write report.json, grid.png and report.html into a run's folder, each whole or not at all.

    columns: name -> pictures (len(prompts), H, W, 3) in [0, 1]; None leaves the grid out.
    """
    said = (json.dumps(report, indent=1) + "\n").encode()
    if columns:
        file = io.BytesIO()
        picture_grid(prompts, columns).save(file, "PNG")
        write_whole(folder / "grid.png", file.getvalue())
    write_whole(folder / "report.json", said)
    write_page([folder])


def write_page(folders: list[Path], out: Path | None = None) -> Path:
    """Write the page of runs to `out`, and return where it is.

    Unless given, that is report.html in the run's own folder, or compared.html here for several. ValueError for a
    folder that is no run, or a page that can't be written.
    """
    runs = read_all(folders)
    target = out or (folders[0] / "report.html" if len(folders) == 1 else Path(COMPARED))
    if not target.parent.is_dir():
        raise ValueError(f"--out {target}: there is no folder {target.parent}; write --out {target.name}")
    check_file(target, "--out", "report.html")
    write_whole(target, render(runs).encode())
    return target


def render(runs: list[Told]) -> str:
    """The page as text."""
    pages = Environment(
        loader=PackageLoader("apexgen", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"share": share, "duration": duration}
    lines = [line for run in runs for line in _rows(run, len(runs) > 1)]
    return pages.get_template("page.html.jinja").render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        runs=runs,
        rows=lines,
        tasks=sorted(keys(lines, "score"), key=lambda task: task != "overall"),  # first what matters: a phone shows few
        spreads=keys(lines, "spread"),
        headline=headline(lines) if len(runs) == 1 else None,
        warned=[(run.name, line) for run in runs for line in warnings(run)],
        quality=quality(runs),
        results=results(runs),
        pictures=[(run.name, _picture(run.folder / "grid.png")) for run in runs if (run.folder / "grid.png").is_file()],
        previews=[(run.name, frames(run)) for run in runs if run.previews],
        charts=chart.charts({run.name: run.metrics for run in runs}),
        width=chart.WIDTH,
        height=chart.HEIGHT,
        facts=_beside([facts(run) for run in runs]),
        differences=differences(runs),
    )


def _rows(run: Told, several: bool) -> list[Row]:
    return [replace(row, name=f"{run.name} {row.name}") if several else row for row in rows(run.scores)]


def headline(lines: list[Row]) -> dict[str, Any] | None:
    """What the page opens with: student@1 against the guided teacher; None where either is missing."""
    named = {row.name: row for row in lines}
    student, teacher = named.get("student@1"), lines[0] if lines else None
    if not (student and teacher and student.score and teacher.score and teacher.note):
        return None
    speed = (teacher.seconds or 0) / student.seconds if student.seconds else 0
    return {
        "student": student,
        "teacher": teacher,
        "undistilled": named.get("teacher@1"),
        "quality": f"{100 * student.score['overall'] / max(teacher.score['overall'], 1e-9):.0f}%",
        "speed": f"{speed:.0f}" if speed else None,
    }


def facts(run: Told) -> dict[str, str]:
    """How far a run is, what it cost and what it ran on, in words."""
    steps, training = int(run.config.get("train.steps", 0)), run.scores.get("training", {})
    seconds = training.get("seconds") or (run.metrics[-1].get("seconds", 0) if run.metrics else 0)
    memory = training.get("peak_memory_bytes") or run.record.get("peak_memory_bytes")
    settings = {
        key.removeprefix("objective."): said for key, said in run.config.items() if key.startswith("objective.")
    }
    told = {
        "Objective": ", ".join(str(said) if key == "name" else f"{key} = {said}" for key, said in settings.items()),
        "Steps": f"{run.step:,}" + (f" of {steps:,}: not at its end yet" if run.step < steps else ""),
    }
    if run.step:
        told["Time"] = f"{duration(seconds)} of training, {duration(seconds / run.step)} a step"
    if "evaluations_per_step" in run.record:
        told["Cost"] = (
            f"{run.record['evaluations_per_step']:g} network evaluations a sample and step; a backward is two"
        )
    if memory:
        told["Peak memory"] = f"{memory / chart.GIGA:.2f} GB"
    if "max_difference" in run.scores.get("export", {}):
        told["Export"] = f"reopened in stock diffusers, differs by {run.scores['export']['max_difference']:.1e}"
    if run.environment:
        told["Environment"] = ", ".join(f"{name} {said}" for name, said in run.environment.items())
    return told


def _beside(told: list[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """What each run says of each fact."""
    names = dict.fromkeys(name for facts in told for name in facts)
    return [(name, [facts.get(name, "-") for facts in told]) for name in names]


def quality(runs: list[Told]) -> Markup | None:
    """The overall score against network evaluations of a picture, where a student was scored at several."""
    lines: list[tuple[str, dict[float, float]]] = []
    levels: dict[str, float] = {}  # of what was drawn in many more steps than the axis shows
    for run in runs:
        student = run.scores.get("student", {})
        curve = {float(steps): entry["score"]["overall"] for steps, entry in student.items() if entry.get("score")}
        if len(curve) < 2:
            continue
        lines.append((run.name if len(runs) > 1 else "student", dict(sorted(curve.items()))))
        if len(runs) > 1:
            continue
        if (teacher := run.scores.get("teacher", {})).get("score"):
            name = f"teacher in {teacher['steps']} steps, guidance {teacher['guidance']:g}"
            levels[name] = teacher["score"]["overall"]
        if (alike := run.scores.get("teacher_1", {})).get("score"):
            lines.append(("teacher in 1 step", {1.0: alike["score"]["overall"]}))
    return curves.chart("overall score by network evaluations", lines, curves.EVALUATIONS, levels) if lines else None


def results(runs: list[Told]) -> list[dict[str, Any]]:
    """What judges said, by protocol: its name, its scores' names, its results, and a chart where it has several NFE."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in (one for run in runs for one in run.results):
        groups.setdefault(json.dumps([result[key] for key in ("benchmark", "judge", "settings")]), []).append(result)
    told = []
    for group in groups.values():
        names = list(dict.fromkeys(name for result in group for name in result["scores"]))
        by_model: dict[str, dict[float, float]] = {}
        for result in sorted(group, key=lambda one: one["evaluations"] or 0):
            if result["evaluations"] and names[0] in result["scores"]:
                curve = by_model.setdefault(result["model"].rpartition("@")[0] or result["model"], {})
                curve[float(result["evaluations"])] = result["scores"][names[0]]
        drawn = [(model, curve) for model, curve in by_model.items() if len(curve) > 1]
        title = f"{names[0]} by network evaluations"
        notes = list(dict.fromkeys(note for result in group for note in result["notes"]))
        told.append({"first": group[0], "names": names, "results": group, "title": title, "notes": notes,
                     "chart": curves.chart(title, drawn, curves.EVALUATIONS) if drawn else None})  # fmt: skip
    return told


def frames(run: Told) -> list[tuple[int, str]]:
    """Evenly chosen previews, the first and the last among them: step and data URL."""
    count = min(FRAMES, len(run.previews))
    chosen = dict.fromkeys(round(index * (len(run.previews) - 1) / max(count - 1, 1)) for index in range(count))
    return [(step, _picture(file)) for step, file in (run.previews[index] for index in chosen)]


def _picture(file: Path) -> str:
    """A picture's data URL, small enough for a page that holds many."""
    content = io.BytesIO()
    with Image.open(file) as picture:
        picture.thumbnail((WIDEST, 4 * WIDEST))
        picture.convert("RGB").save(content, "WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
