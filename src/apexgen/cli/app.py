"""The commands' home, and what several of them take."""

from typing import Annotated

import typer
from rich.console import Console

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
