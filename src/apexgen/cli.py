"""The commands: each is a thin call."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from apexgen.interrupt import Stopped

console = Console()
app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turn a pretrained flow-matching text-to-image model into a one-step generator.",
)
scenes = typer.Typer(no_args_is_help=True, help="The embedded world of captioned scenes.")
app.add_typer(scenes, name="scenes")

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings to change, such as train.steps=100.")]


@app.command()
def demo(
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option(help="Where the run's folder is made.")] = Path("apexgen-demo"),
    ablate: Annotated[bool, typer.Option(help='Also train form = "mix", the paper\'s Eq. 25, and compare.')] = False,
    per_task: Annotated[int, typer.Option(min=1, help="Held-out prompts of each of the six tasks.")] = 20,
) -> None:
    """Distil the embedded model into one step, prove it, and export it.

    Example: apexgen demo
    """
    from apexgen.demo import run_demo

    run_demo(folder, overrides or [], ablate, per_task, console)


@app.command()
def train(
    run: Annotated[Path, typer.Argument(help="The run file, TOML.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take, and write nothing.")] = False,
) -> None:
    """Start or resume a run.

    Example: apexgen train runs/scenes.toml train.steps=500
    """
    from apexgen.config import load_run
    from apexgen.distill import distill
    from apexgen.plan import show_plan

    if dry_run:
        show_plan(load_run(run, overrides or []), console)
        return
    distill(load_run(run, overrides or []), console)


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    prompt: Annotated[list[str], typer.Option("-p", "--prompt", help="What to draw; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Where the picture is written: a grid, one row a prompt.")] = Path(
        "sample.png"
    ),
    steps: Annotated[int, typer.Option(help="Network evaluations.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
) -> None:
    """Draw prompts with a run's student.

    Example: apexgen sample apexgen-demo -p "a photo of a red circle" --steps 1 --seed 0
    """
    from apexgen.distill import sample_run

    console.print(str(sample_run(folder, prompt, steps, seed, out)))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    to: Annotated[str, typer.Option(help="diffusers or comfyui, a LoRA; merged, a whole pipeline.")] = "diffusers",
    out: Annotated[Path | None, typer.Option(help="A new folder; export-<to> in the run's unless given.")] = None,
) -> None:
    """Export a run's student, reopen it, and compare its pictures.

    Example: apexgen export apexgen-demo --to merged
    """
    from apexgen.export.run import export_run

    exported = export_run(run, to, out)
    seen = "" if exported.difference is None else f", pictures differ by at most {exported.difference:.1e}"
    console.print(f"{exported.folder}: {exported.modules} modules took effect{seen}", soft_wrap=True)


@app.command()
def doctor(
    file: Annotated[Path | None, typer.Argument(help="A LoRA, .safetensors; without one, this machine.")] = None,
    base: Annotated[Path | None, typer.Option(help="The pipeline's folder it is for.")] = None,
) -> None:
    """Say what a LoRA of any trainer covers of a model and where it loads, or what this machine can run.

    Exit code 1 where the LoRA does not load, all of it, at its scale, in diffusers or ComfyUI.
    Example: apexgen doctor lora.safetensors --base path/to/a/pipeline
    """
    from apexgen.doctor.environment import describe_environment
    from apexgen.doctor.lora import examine

    if (file is None) != (base is None):
        raise ValueError("write apexgen doctor FILE --base FOLDER, or apexgen doctor alone")
    if file is None or base is None:
        lines, well = describe_environment(), True
    else:
        diagnosis = examine(file, base)
        lines, well = diagnosis.lines, diagnosis.loads
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if not well:
        raise typer.Exit(1)


@app.command()
def probe(
    folder: Annotated[Path, typer.Argument(help='A diffusers pipeline folder; "scenes" is the embedded one.')],
    prompts: Annotated[Path | None, typer.Option(help="One prompt a line; the first 8 are read.")] = None,
    shift: Annotated[
        list[str] | None,
        typer.Option(help='"a,b" of c_fake = a c + b; may be repeated. Five usual ones unless given.'),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Pixels a side; the model's own unless given.")] = None,
) -> None:
    """Say whether the shifted condition is visible to a model: what it changes, beside another prompt.

    Example: apexgen probe path/to/a/pipeline --prompts prompts.txt --shift -1,0 --shift 0.5,0
    """
    from apexgen.config import validate
    from apexgen.distill import open_backbone
    from apexgen.encode import probe_prompts
    from apexgen.probe import SHIFTS, parse_shift, summary, tables
    from apexgen.probe import probe as run_probe

    shifts = [parse_shift(pair) for pair in shift or []] or SHIFTS
    texts = probe_prompts(str(folder), prompts)
    rows = run_probe(open_backbone(validate({"model": {"path": str(folder), "size": size}})), texts, shifts)
    console.print(tables(rows))
    console.print(summary(rows), soft_wrap=True)


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
) -> None:
    """Train objectives from one teacher at one budget, and compare them by steps of sampling.

    Example: apexgen compare --world ring --objectives apex --objectives mean_flow --seeds 3
    """
    import apexgen.compare
    from apexgen.compare.terms import load_terms

    changed = {"world": world, "budget": budget, "seeds": seeds, "teacher_steps": teacher_steps}
    apexgen.compare.compare(load_terms(file, objectives or [], changed), folder, console)


@scenes.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Where the pipeline is written.")],
    overrides: Overrides = None,
    start: Annotated[Path | None, typer.Option("--from", help="A pipeline folder whose transformer goes on.")] = None,
) -> None:
    """Train the embedded pipeline from nothing: autoencoder, text encoder, transformer. Hours on a CPU; resumes.

    Example: apexgen scenes build my-pipeline
    """
    from apexgen.scenes.build import build_pipeline

    recipe = build_pipeline(folder, overrides or [], start, console)
    console.print_json(json.dumps(recipe))


def main() -> None:
    """Run a command: the user's mistakes are one line on standard error and exit code 2."""
    try:
        if code := app(standalone_mode=False):  # click hands back the code of typer.Exit
            sys.exit(code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except Stopped as stop:
        print(stop, file=sys.stderr)
    except (typer.Abort, KeyboardInterrupt):
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        print(f"apexgen: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"apexgen: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        show = getattr(error, "show", None)  # click's own errors: an unknown option, a missing argument
        if show is None:
            raise
        show()
        sys.exit(2)
