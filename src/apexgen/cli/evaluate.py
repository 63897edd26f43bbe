"""The commands that judge: each is a thin call."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexgen.cli.app import (
    LARGEST_SEED,
    MODEL,
    Checkpoint,
    Json,
    Sides,
    Whole,
    answer,
    app,
    busy,
    console,
    drawer_of,
    writable_folder,
    writable_result,
)

if TYPE_CHECKING:
    from apexgen.evaluate.geneval.judge import Line
    from apexgen.evaluate.result import Result

evaluate = typer.Typer(
    cls=Whole,
    no_args_is_help=True,
    help="Judge a model's pictures; each result names its judge.",
    epilog="Example: apexgen evaluate sweep scenes:3 runs/mine --steps 1-4,8,16",
)
app.add_typer(evaluate, name="evaluate")

Model = Annotated[str, typer.Argument(help=MODEL)]
Lora = Annotated[Path | None, typer.Option(help="A LoRA for the pipeline, .safetensors, as apexgen exports it.")]
Steps = Annotated[int, typer.Option(help="Steps of sampling; each is one network evaluation, two with guidance.")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")]
Out = Annotated[
    Path,
    typer.Option(callback=writable_folder, help="A folder for the pictures and the results; the same command goes on."),
]
ELSEWHERE = "some of the work is left to other processes; for the rest give the same command again"


def show(results: "list[Result] | Result | None", as_json: bool) -> None:
    """Tell results, a table or a JSON list for each protocol; none where other ranks are still at it."""
    from apexgen.evaluate.result import by_protocol, table

    if results is None:
        answer(as_json, None, ELSEWHERE)
        return
    results = results if isinstance(results, list) else [results]
    groups = [[result.model_dump(mode="json") for result in group] for group in by_protocol(results)]
    answer(as_json, groups, table(results))


def refuse_given(context: typer.Context, names: Sequence[str], beside: str) -> None:
    """ValueError for the first of the options that was given though it has no effect beside another."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"--{name.replace('_', '-')} has no effect on {beside}; leave it out")


@evaluate.command("table")
def show_table(
    results: Annotated[list[Path], typer.Argument(help="Files of results, JSON.")],
    by: Annotated[
        str, typer.Option(help="benchmark: a table each; model: one table, a row a model and its chief figures.")
    ] = "benchmark",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json: Json = False,
) -> None:
    """Print several results as papers do; unlike judges and protocols never share a column.

    Example: apexgen evaluate table eval/*/result.json eval/speed/*.json --by model --markdown
    """
    from apexgen.evaluate.by_model import models_table
    from apexgen.evaluate.result import grids, load_result

    if by not in ("benchmark", "model"):
        raise ValueError(f"--by {by}: write --by benchmark or --by model")
    if markdown and json:
        raise ValueError("--markdown has no effect on --json; leave it out")
    loaded = [load_result(file) for file in results]
    if by == "benchmark" and not markdown:
        return show(loaded, json)
    shown = [models_table(loaded)] if by == "model" else grids(loaded)
    if markdown:
        return print("\n\n".join(grid.markdown() for grid in shown))
    data = [dict(zip(grid.names, row, strict=True)) for grid in shown for row in grid.rows]
    return answer(json, data, *(grid.drawn() for grid in shown))


@evaluate.command()
def scenes(
    folder: Model,
    out: Out,
    steps: Steps = 1,
    guidance: Guidance = 1.0,
    lora: Lora = None,
    checkpoint: Checkpoint = "latest",
    per_task: Annotated[int, typer.Option(min=1, help="Held-out captions of each of the six tasks.")] = 20,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Of the captions, and of the first picture.")
    ] = 1_000_000,
    json: Json = False,
) -> None:
    """Score a model of the embedded world on held-out captions; the judge is exact.

    Example: apexgen evaluate scenes apexgen-demo --steps 1 --out eval/demo
    """
    with busy("starting"):
        from apexgen.evaluate.scenes import evaluate_scenes

    drawer = drawer_of(folder, lora, checkpoint, steps, guidance)
    show(evaluate_scenes(drawer, out, per_task, seed, console), json)


@evaluate.command()
def geneval(
    context: typer.Context,
    out: Out,
    folder: Annotated[str | None, typer.Argument(help='What draws: a run, a pipeline, or "scenes".')] = None,
    pictures: Annotated[Path | None, typer.Option(help="Judge this folder, laid out as GenEval's, instead.")] = None,
    model: Annotated[str | None, typer.Option(help="What to call the model in tables.")] = None,
    steps: Steps = 1,
    guidance: Guidance = 1.0,
    lora: Lora = None,
    checkpoint: Checkpoint = "latest",
    size: Sides = None,
    metadata: Annotated[Path | None, typer.Option(help="GenEval's metadata; the official one if none.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Pictures a prompt.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of each prompt's first picture.")] = 42,
    kind: Annotated[str, typer.Option(help="Of the detector: mask2former, owlv2 or grounding-dino.")] = "mask2former",
    detector: Annotated[str | None, typer.Option(help="Its weights: a folder, or a cached repository.")] = None,
    clip: Annotated[str, typer.Option(help="Those of the judge of colors.")] = "openai/clip-vit-large-patch14",
    threshold: Annotated[float | None, typer.Option(help="Least score; the kind's usual unless given.")] = None,
    counting_threshold: Annotated[float | None, typer.Option(help="The same for counts.")] = None,
    max_overlap: Annotated[float | None, typer.Option(help="Of two boxes of a class; 1 is any.")] = None,
    json: Json = False,
) -> None:
    """GenEval: draw its prompts and judge them, or judge pictures that are there.

    Example: apexgen evaluate geneval runs/mine --steps 1 --out eval/mine
    """
    with busy("starting"):
        from apexgen.evaluate.geneval.records import read_records
        from apexgen.evaluate.geneval.run import Choice, draw_geneval, judge_geneval

    _check_source(context, folder, pictures)
    choice = Choice(kind, detector, clip, threshold, counting_threshold, max_overlap)
    choice.find()  # what is missing is told before hours of drawing
    jobs = None
    if folder is not None:
        records, drawer = read_records(metadata), drawer_of(folder, lora, checkpoint, steps, guidance, size)
        jobs = draw_geneval(out / "pictures", records, drawer, console, samples, seed)
        if jobs is None:
            return show(None, json)
    _show_judged(judge_geneval(choice, pictures or out / "pictures", out / kind, model, console, jobs), json)


def _show_judged(judged: "tuple[Result, list[Line]] | None", as_json: bool) -> None:
    """Tell a judged folder by GenEval's summary; nothing where other ranks are still at it."""
    from apexgen.evaluate.geneval.judge import official_summary

    if judged is None:
        return show(None, as_json)
    result, lines = judged
    found = result.scores.get("within")
    apart = "" if found is None else f"\nTwo pictures of a prompt are apart by: {found:.4f}"
    return answer(
        as_json, result.model_dump(mode="json"), f"{official_summary(lines)}{apart}\njudged by {result.judge}"
    )


def _check_source(context: typer.Context, folder: str | None, pictures: Path | None) -> None:
    if (folder is None) == (pictures is None):
        raise ValueError("write apexgen evaluate geneval FOLDER --out OUT, or give --pictures in place of FOLDER")
    if pictures is not None:
        refuse_given(
            context, ("steps", "guidance", "lora", "checkpoint", "size", "metadata", "samples", "seed"), "--pictures"
        )


@evaluate.command()
def geneval_results(
    file: Annotated[Path, typer.Argument(help="results.jsonl, as GenEval's evaluate_images.py writes it.")],
    judge: Annotated[str, typer.Option(help="Who judged, in full.")],
    model: Annotated[str, typer.Option(help="Who drew.")],
    out: Annotated[Path, typer.Option(callback=writable_result, help="The result, .json.")],
    json: Json = False,
) -> None:
    """Make a result of an official result file, and print GenEval's summary of it.

    Example: apexgen evaluate geneval-results results.jsonl --judge "mmdet Mask2Former" --model mine --out mine.json
    """
    with busy("starting"):
        from apexgen.evaluate.geneval.judge import official_summary, read_results
        from apexgen.evaluate.geneval.run import to_result
        from apexgen.evaluate.result import save_result

    lines = read_results(file)
    result = to_result(lines, judge, judge, model, {})
    save_result(result, out)
    answer(json, result.model_dump(mode="json"), official_summary(lines))
