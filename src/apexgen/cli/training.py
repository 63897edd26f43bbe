"""The commands that train: each is a thin call."""

from pathlib import Path
from typing import Annotated

import typer

from apexgen.cli.app import Json, Overrides, answer, app, busy, console, scenes


@app.command()
def demo(
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option(help="Where the run's folder is made.")] = Path("apexgen-demo"),
    ablate: Annotated[bool, typer.Option(help='Also train form = "mix", the paper\'s Eq. 25, and compare.')] = False,
    per_task: Annotated[int, typer.Option(min=1, help="Held-out prompts of each of the six tasks.")] = 20,
    json: Json = False,
) -> None:
    """Distil the embedded model into one step, prove it, and export it.

    Example: apexgen demo
    """
    with busy("starting"):
        from apexgen.demo import run_demo

    report = run_demo(folder, overrides or [], ablate, per_task, console)
    answer(json, report)


@app.command()
def train(
    run: Annotated[Path, typer.Argument(help="The run file, TOML.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take, and write nothing.")] = False,
    json: Json = False,
) -> None:
    """Start or resume a run.

    Example: apexgen train run.toml train.steps=500
    """
    with busy("starting"):
        from dataclasses import asdict

        from apexgen.config import load_run
        from apexgen.distill import distill
        from apexgen.plan import show_plan

    settings = load_run(run, overrides or [])
    if dry_run:
        answer(json, asdict(show_plan(settings, console)))
        return
    trainer, seconds = distill(settings, console)
    told = {"folder": settings.folder, "steps": trainer.step, "seconds": trainer.seconds_before + seconds}
    if trainer.team.first:
        answer(json, told, f"trained; look at it: apexgen report {settings.folder}")


@app.command()
def compare(
    file: Annotated[
        Path | None, typer.Argument(help="A contest's file, TOML; the world's usual one if not given.")
    ] = None,
    world: Annotated[str | None, typer.Option(help="ring, checkerboard or scenes.")] = None,
    objectives: Annotated[
        list[str] | None, typer.Option(help="A contestant; may be repeated. All unless given.")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Network evaluations of a batch; a backward counts two.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of each contestant.")] = None,
    teacher_steps: Annotated[int | None, typer.Option(help="Steps that make the teacher of points.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the report is written.")] = Path("apexgen-compare"),
    json: Json = False,
) -> None:
    """Train objectives from one teacher at one budget, and compare them by steps of sampling.

    Example: apexgen compare --world ring --objectives apex --objectives mean_flow --seeds 3
    """
    with busy("starting"):
        import apexgen.compare
        from apexgen.compare.terms import load_terms

    changed = {"world": world, "budget": budget, "seeds": seeds, "teacher_steps": teacher_steps}
    answer(json, apexgen.compare.compare(load_terms(file, objectives or [], changed), folder, console))


@scenes.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Where the pipeline is written.")],
    overrides: Overrides = None,
    start: Annotated[Path | None, typer.Option("--from", help="A pipeline folder whose transformer goes on.")] = None,
    json: Json = False,
) -> None:
    """Train the embedded pipeline from nothing: autoencoder, text encoder, transformer. Hours on a CPU; resumes.

    Example: apexgen scenes build my-pipeline
    """
    with busy("starting"):
        from apexgen.scenes.build import build_pipeline

    recipe = build_pipeline(folder, overrides or [], start, console)
    answer(json, {"folder": str(folder)} | recipe, f"{folder}: draw with it: apexgen sample {folder} -p 'a red ring'")
