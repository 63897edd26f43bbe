"""The command that begins a run: a thin call."""

from pathlib import Path
from typing import Annotated

import typer

from apexgen.cli.app import Json, answer, app, busy


@app.command()
def init(
    family: Annotated[
        str | None, typer.Argument(help="qwen-image, flux, sd3, sana, lumina2, z-image or scenes.")
    ] = None,
    vram: Annotated[float | None, typer.Option(min=0.1, help="The card's memory in GB; 24 unless given.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="A YAML file of the APEX authors' to translate, in place of a family.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The run file, TOML.")] = Path("run.toml"),
    json: Json = False,
) -> None:
    """Write a commented run file that fits a card, or translate one of the APEX authors' files.

    Example: apexgen init qwen-image --vram 24 --out run.toml
    """
    with busy("starting"):
        from apexgen.start.translate import translate
        from apexgen.start.write import run_file, write_start

    if (family is None) == (start is None):
        raise ValueError("write apexgen init FAMILY --vram 24, or apexgen init --from FILE.yaml")
    if start is not None and vram is not None:
        raise ValueError("--vram has no effect on --from; leave it out")
    text = translate(start) if start is not None else run_file(family or "", vram or 24)
    write_start(text, out)
    answer(json, {"out": str(out)}, f"{out}: read it, then: apexgen train {out} --dry-run")
