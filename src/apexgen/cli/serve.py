"""The commands that let others draw, in a browser or over HTTP: each is a thin call."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from apexgen.cli.app import MODEL, Checkpoint, Json, answer, app, busy, console

Folder = Annotated[str, typer.Argument(help=MODEL)]
Lora = Annotated[Path | None, typer.Option(help="An exported LoRA, .safetensors, for a pipeline.")]
Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one this machine has.")]
Guidance = Annotated[float, typer.Option(min=0, help="The teacher's guidance; 1 is none.")]
TeacherSteps = Annotated[int, typer.Option(min=1, max=100, help="Steps of the teacher, unless asked otherwise.")]


def _need(command: str, *packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise ValueError(f'apexgen {command} needs {package}; write: pip install "apexgen[app]"')


def _told(as_json: bool) -> Callable[[str], None]:
    return lambda address: answer(as_json, {"url": address}, address)


@app.command()
def serve(
    folder: Folder,
    lora: Lora = None,
    checkpoint: Checkpoint = "latest",
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is a free one.")] = 8000,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at once, at most.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Pictures that may wait; beyond them, 429.")] = 128,
    timeout: Annotated[float, typer.Option(min=0.1, max=86400, help="Seconds until a request is given up, 504.")] = 60,
    teacher_steps: TeacherSteps = 50,
    guidance: Guidance = 3.0,
    json: Json = False,
) -> None:
    """Answer requests for pictures over HTTP, in the shape of OpenAI's images.

    Example: apexgen serve apexgen-demo --port 8000
    """
    _need("serve", "fastapi", "uvicorn", "prometheus_client")
    with busy("opening the model"):
        from apexgen.drawer import open_model
        from apexgen.serve.server import make_offer
        from apexgen.serve.server import serve as serve_offer

        model = open_model(folder, lora, checkpoint=checkpoint)
        offer = make_offer(model, teacher_steps, guidance, batch, queue, timeout)
    serve_offer(offer, host, port, console, _told(json))


@app.command(name="app")
def show_page(
    folder: Folder = "scenes",
    lora: Lora = None,
    checkpoint: Checkpoint = "latest",
    host: Host = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The first free one from 7860 unless given.")
    ] = None,
    guidance: Guidance = 3.0,
    json: Json = False,
) -> None:
    """Show a page that draws: teacher beside student, with what each took.

    Example: apexgen app apexgen-demo
    """
    _need("app", "gradio")
    with busy("opening the model"):
        from apexgen.app.launch import run_app
        from apexgen.drawer import open_model

        model = open_model(folder, lora, checkpoint=checkpoint)
    run_app(model, guidance, host, port, console, _told(json))
