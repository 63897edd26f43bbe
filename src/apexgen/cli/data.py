"""The commands that make data ready, or make it: each is a thin call."""

from pathlib import Path
from typing import Annotated, Any

import typer

from apexgen.cli.app import LARGEST_SEED, PIPELINE, Json, Overrides, Sides, answer, app, busy, console, writable_folder


@app.command()
def encode(
    run: Annotated[Path, typer.Argument(help="The run file, TOML; its data.cache names the folder.")],
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Encode a run's captions and pictures into its cache; what is there already is not encoded again.

    Example: apexgen encode run.toml data.cache=cache
    """
    with busy("starting"):
        from apexgen.config import load_run
        from apexgen.distill import encode_run

    _answer(json, encode_run(load_run(run, overrides or []), console))


@app.command()
def synthesize(
    folder: Annotated[Path, typer.Argument(help=PIPELINE)],
    prompts: Annotated[Path, typer.Option(help="A text file, one prompt a line.")],
    out: Annotated[
        Path, typer.Option(callback=writable_folder, help="The folder of the tars; the same command goes on there.")
    ],
    steps: Annotated[int, typer.Option(help="Network evaluations, twice as many with guidance.")] = 50,
    guidance: Annotated[float, typer.Option(help="Of the teacher; 1 is none.")] = 4.0,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the first prompt's noise; the next has the next.")
    ] = 0,
    size: Sides = None,
    shard: Annotated[int, typer.Option(min=1, help="Pictures a tar: the most that a kill costs.")] = 64,
    weights: Annotated[str, typer.Option(help="How the model is held: float32, bfloat16, 8bit or 4bit.")] = "float32",
    json: Json = False,
) -> None:
    """Draw a model's own pictures of many prompts, as data to train on; resumes, and shares the work under torchrun.

    Example: apexgen synthesize path/to/a/pipeline --prompts prompts.txt --out pictures --steps 50 --guidance 4 --seed 0
    """
    with busy("starting"):
        from apexgen.synthesize import Plan, run_synthesis

    plan = Plan(str(folder), steps, guidance, seed, size, shard, weights)
    _answer(json, run_synthesis(plan, prompts, out, console))


def _answer(as_json: bool, told: dict[str, Any] | None) -> None:
    if told is not None:  # else another process tells of it
        answer(as_json, told)
