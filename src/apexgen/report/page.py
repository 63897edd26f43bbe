"""The page of a run: report.json, grid.png and report.html, which needs no other file and no network."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from apexgen.files import write_whole
from apexgen.report import chart
from apexgen.report.grid import picture_grid, to_cell
from apexgen.report.rows import Row, duration, keys, rows, share


def write_report(
    folder: Path,
    report: dict[str, Any],
    columns: dict[str, np.ndarray] | None,
    prompts: Sequence[str],
) -> None:
    """Write report.json, grid.png and report.html into a run's folder, each whole or not at all.

    columns: name -> pictures (len(prompts), H, W, 3) in [0, 1]; None leaves the grid out. Also
    shows the folder's config.toml and metrics.jsonl where they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = render(folder, report, columns or {}, prompts)
    if columns:
        file = io.BytesIO()
        picture_grid(prompts, columns).save(file, "PNG")
        write_whole(folder / "grid.png", file.getvalue())
    write_whole(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    write_whole(folder / "report.html", page.encode())


def render(folder: Path, report: dict[str, Any], columns: dict[str, np.ndarray], prompts: Sequence[str]) -> str:
    """The page as text."""
    config = folder / "config.toml"
    lines = rows(report)
    pages = Environment(
        loader=PackageLoader("apexgen", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"share": share, "duration": duration}
    return pages.get_template("page.html.jinja").render(
        title=folder.resolve().name,
        rows=lines,
        tasks=keys(lines, "score"),
        spreads=keys(lines, "spread"),
        headline=headline(lines),
        facts=facts(report),
        pictures=_pictures(columns, prompts),
        charts=chart.charts(chart.read_metrics(folder / "metrics.jsonl")),
        width=chart.WIDTH,
        height=chart.HEIGHT,
        config=config.read_text() if config.is_file() else "",
        environment=report.get("environment", {}),
    )


def headline(lines: list[Row]) -> dict[str, Any] | None:
    """What the page opens with: student@1 against the guided teacher; None where either is missing."""
    named = {row.name: row for row in lines}
    student, teacher = named.get("student@1"), lines[0] if lines else None
    if not (student and teacher and student.score and teacher.score and teacher.note):
        return None
    speed = (teacher.seconds or 0) / student.seconds if student.seconds else 0
    quality = student.score["overall"] / max(teacher.score["overall"], 1e-9)
    return {
        "student": student,
        "teacher": teacher,
        "undistilled": named.get("teacher@1"),
        "quality": f"{100 * quality:.0f}%",
        "speed": f"{speed:.0f}" if speed else None,
    }


def facts(report: dict[str, Any]) -> dict[str, str]:
    """The training and the export, in words."""
    training, export = report.get("training", {}), report.get("export", {})
    told = {}
    if "objective" in training:
        objective = training["objective"]
        named = objective.items() if isinstance(objective, dict) else [("name", objective)]
        told["Objective"] = ", ".join(str(v) if k == "name" else f"{k} = {v}" for k, v in named)
    if "steps" in training:
        told["Steps"] = f"{training['steps']:,}"
    if "seconds" in training:
        told["Training time"] = "{:.0f} min {:.0f} s".format(*divmod(training["seconds"], 60))
    if "peak_memory_bytes" in training:
        told["Peak memory"] = f"{training['peak_memory_bytes'] / 2**30:.2f} GiB"
    if "max_difference" in export:
        told["Export"] = f"reopened in stock diffusers, differs by {export['max_difference']:.1e}"
    return told


def _pictures(columns: dict[str, np.ndarray], prompts: Sequence[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each prompt, the name and the data URL of each column's picture."""
    return [
        (prompt, [(name, _data_url(pictures[row])) for name, pictures in columns.items()])
        for row, prompt in enumerate(prompts if columns else [])
    ]


def _data_url(picture: np.ndarray) -> str:
    file = io.BytesIO()
    to_cell(picture).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
