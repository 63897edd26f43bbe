"""The commands that judge: each is a thin call."""

from pathlib import Path
from typing import Annotated

import typer

from apexgen.cli.app import app, console

evaluate = typer.Typer(no_args_is_help=True, help="Judge a model's pictures; each result names its judge.")
app.add_typer(evaluate, name="evaluate")

Model = Annotated[str, typer.Argument(help="A run's folder, a diffusers pipeline's, or \"scenes\".")]
Lora = Annotated[Path | None, typer.Option(help="A LoRA for the pipeline, .safetensors, as apexgen exports it.")]
Steps = Annotated[int, typer.Option(help="Steps of sampling; each is one network evaluation, two with guidance.")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")]
Out = Annotated[Path, typer.Option(help="A folder for the pictures and the result; the same command goes on.")]


@evaluate.command("table")
def show_table(
    results: Annotated[list[Path], typer.Argument(help="Files of results, JSON.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
) -> None:
    """Print several results as papers do; unlike judges and protocols get tables of their own.

    Example: apexgen evaluate table eval/*/result.json
    """
    from apexgen.evaluate.result import by_protocol, load_result, table

    loaded = [load_result(file) for file in results]
    if json:
        console.print_json(data=[[result.model_dump(mode="json") for result in group] for group in by_protocol(loaded)])
    else:
        console.print(table(loaded))
