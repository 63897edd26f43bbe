"""The command that shows what runs came to: a thin call."""

from pathlib import Path
from typing import Annotated

import typer

from apexgen.cli.app import Json, answer, app, busy


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="A run's folder; several are compared on one page.")],
    out: Annotated[
        Path | None, typer.Option(help="The page, .html; report.html in a single run's folder, or compared.html here.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the page of a run, finished or not, or of several beside one another.

    Example: apexgen report runs/mine runs/other
    """
    with busy("starting"):
        from apexgen.report.folder import read_all
        from apexgen.report.page import write_page
        from apexgen.report.warnings import warnings

    with busy("reading the runs"):
        page = write_page(runs, out)
        told = [{"run": run.name, "step": run.step, "warnings": warnings(run)} for run in read_all(runs)]
    lines = [f"{run['run']}: {line}" for run in told for line in run["warnings"]]
    answer(json, {"page": str(page), "runs": told}, *lines, f"report: {page}")
