"""A mistake in how a command is written, in one line: what it is, and the command as it should be."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import typer

from apexgen.cli.app import app


def example(command: Any) -> str:
    """The example in a command's help, on one line."""
    [found] = re.findall(r"Example: (.*?)(?:\n\s*\n|\Z)", f"{command.help}\n\n{command.epilog or ''}", re.DOTALL)
    return " ".join(found.split())


def mistake(error: Any, words: Sequence[str]) -> str:
    """A line on one of the errors that typer has for words which it can't read; for a group alone, its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    command, path = typer.main.get_command(app), ["apexgen"]
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
        path.append(word)
    said, see = error.format_message(), f"see {' '.join(path)} --help"
    unknown = re.match(r"No such command '(.+?)'", said)
    if unknown:
        said = unknown[0]
        near = get_close_matches(unknown[1], command.commands, n=1)
        remedy = f"write {' '.join([*path, *near])}" if near else see
    elif hasattr(error, "possibilities"):  # an unknown option
        said, remedy = error.message, f"did you mean {error.possibilities[0]}?" if error.possibilities else see
    else:
        shown = example(command)
        remedy = f"write it as here: {shown}" if _is_shown(error, shown) else see
    said = " ".join(said.split()).rstrip(".")
    return f"{' '.join(path)}: {said[0].lower()}{said[1:]}; {remedy}"


def _is_shown(error: Any, shown: str) -> bool:
    """Whether an example has the option that an error is of, if it is of one."""
    named = [getattr(error, "option_name", None), *getattr(getattr(error, "param", None), "opts", ())]
    options = {name for name in named if name is not None and name.startswith("-")}
    return not options or bool(options & set(shown.split()))
