"""The commands' home: their order in help, the exit codes, and one way for a result to be told."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType
from typer.core import TyperGroup

from apexgen.files import check_file, check_folder
from apexgen.size import Size

if TYPE_CHECKING:
    from apexgen.drawer import Drawer

WIDEST = 240  # columns that a table may take, also where the terminal has fewer
SENTENCE = 1000  # characters: no command says more of itself in a list of them
PIPELINE = 'A diffusers pipeline: its folder, "hub:owner/name", or "scenes", the embedded one.'
MODEL = f"A run's folder. {PIPELINE}"
WELL, NO, MISTAKE, STOPPED = 0, 1, 2, 130  # done; the result says no, or training diverged; the user's; ctrl-C
LARGEST_SEED = 2**40 - 1  # of train.seed too

SECTIONS = {
    "Train": ("demo", "init", "train", "report", "compare"),
    "Data": ("encode", "synthesize"),
    "Use": ("sample", "app", "serve", "export"),
    "Examine": ("doctor", "probe", "evaluate"),
    "More": ("scenes",),
}  # of help, in reading order; a command that no section names is last


class Whole(TyperGroup):
    """Lists the commands with a whole sentence each, on as many lines as it takes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """One table."""
        self.write_table("Commands", self.list_commands(ctx), formatter)

    def write_table(self, title: str, names: Sequence[str], formatter: Any) -> None:
        """A table of the commands of these names that there are."""
        shown = [self.commands[name] for name in names if name in self.commands]
        if shown:
            with formatter.section(title):
                formatter.write_dl([(one.name, one.get_short_help_str(SENTENCE)) for one in shown])


class Sections(Whole):
    """Lists the commands in their sections."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in reading order."""
        order = [name for names in SECTIONS.values() for name in names]
        return sorted(self.commands, key=lambda name: order.index(name) if name in order else len(order))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """One table a section."""
        named = {name for names in SECTIONS.values() for name in names}
        for title, names in SECTIONS.items():
            if title == "More":
                names += tuple(name for name in self.list_commands(ctx) if name not in named)
            self.write_table(title, names, formatter)


console = Console()
app = typer.Typer(
    cls=Sections,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turn a pretrained flow-matching text-to-image model into a one-step generator.",
    epilog="Example: apexgen demo\n\n"
    "Exit codes: 0 done, 1 the result says no or training diverged, 2 a mistake in what was asked, 130 stopped.",
)
scenes = typer.Typer(
    cls=Whole,
    no_args_is_help=True,
    help="The embedded world of captioned scenes.",
    epilog="Example: apexgen scenes build my-pipeline",
)
app.add_typer(scenes, name="scenes")


def _print_version(wanted: bool) -> None:
    if wanted:
        from apexgen import __version__

        print(f"apexgen {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """What every command takes."""


def _leave_stdout(wanted: bool) -> bool:
    console.stderr = wanted
    return wanted


def _read_size(written: str | None) -> Size | None:
    try:
        return None if written is None else Size.read(written)
    except ValueError as error:
        raise ValueError(f"--size: {error}") from None


def writable_folder(option: typer.CallbackParam, folder: Path | None) -> Path | None:
    """A folder to write to; ValueError, before any work, where it can't be made or written to."""
    if folder is not None:
        check_folder(folder, option.opts[0])
    return folder


def writable_result(option: typer.CallbackParam, file: Path) -> Path:
    """A result's file to write; ValueError, before any work, where it can't be."""
    check_file(file, option.opts[0], "result.json")
    return file


Overrides = Annotated[list[str] | None, typer.Argument(help="Settings to change, such as train.steps=100.")]
Checkpoint = Annotated[str, typer.Option(help="Of a run: latest, best (train.keep_best), or a step.")]
Sides = Annotated[
    Size | None,
    typer.Option(
        "--size", parser=str, callback=_read_size, metavar="WIDTHxHEIGHT",
        help="Pixels, or a square's side; the model's own unless given.",
    ),
]  # fmt: skip
Json = Annotated[
    bool, typer.Option("--json", callback=_leave_stdout, help="Print the result as JSON, alone on standard output.")
]


def answer(as_json: bool, data: Any, *said: RenderableType) -> None:
    """Tell a command's result: as JSON, or in what is said to people."""
    if as_json:
        print(json.dumps(data, indent=1, allow_nan=False), flush=True)  # whoever reads a pipe may wait for it
        return
    for one in said:
        if isinstance(one, str):
            console.print(one, soft_wrap=True, markup=False, highlight=False)
        else:  # a figure that is cut off tells nothing
            wide = Console(file=console.file, width=max(console.width, WIDEST))
            wide.print(one, markup=False, highlight=False)


def busy(doing: str) -> AbstractContextManager[Any]:
    """A sign of life, on a terminal, for what may take seconds and can't be counted."""
    from apexgen.progress import working

    return working(doing)


def drawer_of(
    folder: str, lora: Path | None, checkpoint: str, steps: int, guidance: float, size: Size | None = None
) -> "Drawer":
    """What draws, of the options that say so. ValueError, one line, where it can't be opened."""
    with busy("opening the model"):
        from apexgen.drawer import open_model

        return open_model(folder, lora, size, checkpoint=checkpoint).drawer(steps, guidance)
