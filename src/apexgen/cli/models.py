"""The commands that look at a model, use it, or take it out: each is a thin call."""

from pathlib import Path
from typing import Annotated

import typer

from apexgen.cli.app import (
    LARGEST_SEED,
    MODEL,
    NO,
    PIPELINE,
    Checkpoint,
    Json,
    Sides,
    answer,
    app,
    busy,
    console,
    drawer_of,
)


@app.command()
def sample(
    folder: Annotated[str, typer.Argument(help=MODEL)],
    prompt: Annotated[list[str] | None, typer.Option("-p", "--prompt", help="What to draw; may be repeated.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with one prompt a line.")] = None,
    out: Annotated[
        Path, typer.Option(help="A .png, which gets a grid, one row a prompt; or a folder, which gets each picture.")
    ] = Path("sample.png"),
    steps: Annotated[int, typer.Option(help="Steps of sampling.")] = 1,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    lora: Annotated[Path | None, typer.Option(help="A LoRA for the pipeline, .safetensors.")] = None,
    grid: Annotated[int, typer.Option(min=1, help="Pictures a prompt.")] = 1,
    size: Sides = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the first picture's noise; each has the next one.")
    ] = 0,
    checkpoint: Checkpoint = "latest",
    json: Json = False,
) -> None:
    """Draw prompts with a run's student, a pipeline, or a pipeline and a LoRA.

    Example: apexgen sample apexgen-demo -p "a photo of a red circle" --steps 1 --seed 0
    """
    if not prompt and prompts is None:
        raise ValueError('--prompt is missing: write -p "a red ring", or --prompts FILE, one prompt a line')
    with busy("starting"):
        from apexgen.drawer import check_out, save_grid
        from apexgen.encode import given_prompts
        from apexgen.evaluate.gallery import Job, fill
        from apexgen.sample import uniform_grid

    texts = given_prompts(prompt or [], prompts)
    uniform_grid(steps)  # refuses steps < 1 before anything is opened
    check_out(out)
    drawer = drawer_of(folder, lora, checkpoint, steps, guidance, size)
    if out.suffix == ".png":
        save_grid(drawer, texts, seed, out, grid)
    else:
        repeated = [text for text in texts for _ in range(grid)]
        fill(out, [Job(f"{i:05}.png", text, seed + i) for i, text in enumerate(repeated)], drawer, console)
    answer(json, {"out": str(out), "pictures": len(texts) * grid, "seed": seed} | drawer.settings(), str(out))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    to: Annotated[str, typer.Option(help="diffusers or comfyui, a LoRA; merged, a whole pipeline.")] = "diffusers",
    out: Annotated[Path | None, typer.Option(help="A new folder; export-<to> in the run's unless given.")] = None,
    checkpoint: Checkpoint = "latest",
    json: Json = False,
) -> None:
    """Export a run's student, reopen it, and compare its pictures.

    Example: apexgen export apexgen-demo --to merged
    """
    with busy("starting"):
        from apexgen.export.run import export_run

    with busy("exporting, and opening it again"):
        exported = export_run(run, to, out, checkpoint)
    seen = f", pictures differ by at most {exported.difference:.1e}"
    told = {"folder": str(exported.folder), "modules": exported.modules, "difference": exported.difference}
    answer(json, told, f"{exported.folder}: {exported.modules} modules took effect{seen}")


@app.command()
def doctor(
    file: Annotated[Path | None, typer.Argument(help="A LoRA, .safetensors; without one, this machine.")] = None,
    base: Annotated[Path | None, typer.Option(help=f"What it is for. {PIPELINE}")] = None,
    json: Json = False,
) -> None:
    """Say what a LoRA of any trainer covers of a model and where it loads, or what this machine can run.

    Exit code 1 where the LoRA does not load, all of it, at its scale, in diffusers or ComfyUI.
    Example: apexgen doctor lora.safetensors --base path/to/a/pipeline
    """
    with busy("starting"):
        from apexgen.doctor.environment import describe_environment, environment_lines
        from apexgen.doctor.lora import examine

    if (file is None) != (base is None):
        raise ValueError("write apexgen doctor FILE --base FOLDER, or apexgen doctor alone")
    if file is None or base is None:
        with busy("looking at this machine"):
            told, well = describe_environment(), True
        lines = environment_lines(told)
    else:
        with busy("giving it to the loaders"):
            diagnosis = examine(file, base)
        told, well, lines = diagnosis.told, diagnosis.loads, diagnosis.lines
    answer(json, {"well": well} | told, *lines)
    if not well:
        raise typer.Exit(NO)


@app.command()
def probe(
    folder: Annotated[Path, typer.Argument(help=PIPELINE)],
    prompts: Annotated[Path | None, typer.Option(help="One prompt a line; the first 8 are read.")] = None,
    shift: Annotated[
        list[str] | None,
        typer.Option(help='"a,b" of c_fake = a c + b; may be repeated. Five usual ones unless given.'),
    ] = None,
    size: Sides = None,
    json: Json = False,
) -> None:
    """Say whether the shifted condition is visible to a model: what it changes, beside another prompt.

    Each shift is tried on the encoders' text, and "after" the network's own projection of it (shift_place).
    Example: apexgen probe path/to/a/pipeline --prompts prompts.txt --shift -1,0 --shift 0.5,0
    """
    with busy("starting"):
        from apexgen.config import validate
        from apexgen.distill import open_backbone
        from apexgen.encode import probe_prompts
        from apexgen.probe import USUAL, as_data, in_both_places, parse_shift, summary, tables
        from apexgen.probe import probe as run_probe

    shifts = in_both_places([parse_shift(pair) for pair in shift or []] or USUAL)
    texts = probe_prompts(str(folder), prompts)
    with busy("probing"):
        rows = run_probe(open_backbone(validate({"model": {"path": str(folder), "size": size}})), texts, shifts)
    answer(json, as_data(rows), tables(rows), summary(rows))
