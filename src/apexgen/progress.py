"""Signs of life, on standard error and only where that is a terminal: a bar for what can be counted, else a spinner.

And the bar of a run, which is where the run prints.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

Thing = TypeVar("Thing")
# Of processes that a launcher started the first one prints: take_place has the same variable.
STDERR = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


def columns() -> tuple[ProgressColumn, ...]:
    """What a bar shows: what is done, how much of it, and how long it will take."""
    return TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


class _TrainingBar(Progress):
    """A bar over a line of its own for the losses: beside it they would cut each other short."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        yield from (Text(task.fields["losses"], no_wrap=True, overflow="ellipsis") for task in self.tasks)


def training_bar(console: Console) -> Progress:
    """Steps done, their speed, the time left, and every term of the loss: what a run shows where it prints."""
    return _TrainingBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
    )


def working(doing: str) -> AbstractContextManager[Any]:
    """A spinner that says what is done."""
    return STDERR.status(Text(doing))


@contextmanager
def bar(doing: str, total: int, still: bool = False) -> Iterator[Callable[[], None]]:
    """A bar that says what is done, gone in the end; what is yielded moves it on by one.

    still: it is drawn only when it moves, so that nothing runs beside what is timed.
    """
    if not STDERR.is_terminal:
        yield lambda: None
        return
    with Progress(*columns(), console=STDERR, transient=True, auto_refresh=not still) as shown:
        task = shown.add_task(doing, total=total)
        shown.refresh()

        def advance() -> None:
            shown.advance(task)
            if still:
                shown.refresh()

        yield advance


def counted(things: Sequence[Thing], doing: str, still: bool = False) -> Iterator[Thing]:
    """The things one after another, beside a bar."""
    with bar(doing, len(things), still) as advance:
        for thing in things:
            yield thing
            advance()
