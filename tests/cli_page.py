"""docs/cli.md, made from the commands' own help: `python tests/cli_page.py` writes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from apexgen.cli import main  # noqa: F401 (puts the commands on the app)
from apexgen.cli.app import SECTIONS, app
from apexgen.cli.mistake import example

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
HEAD = """\
# The command line

    apexgen --help                 # all commands
    apexgen train --help           # one: its options, and an example

`apexgen --install-completion` completes commands in your shell, `--show-completion` prints how;
`apexgen --version` is this version.

Exit codes, of every command:

| code | when |
|---|---|
| 0 | done; or asked to stop by ctrl-C or SIGTERM where a command has an end of its own for it: see below |
| 1 | the result says no, such as a LoRA that does not load; or training diverged |
| 2 | a mistake in what was asked: one line on standard error names it, and nothing is half-written |
| 130 | stopped by ctrl-C at any other time; what was saved is whole, and the last line says what is next |

These end well, with 0, when ctrl-C or SIGTERM asks them to, as schedulers of clusters expect:

- a run's training, of `train`, `demo` or `compare --world scenes`: after the step, saved;
- its encoding, also of `encode`: after a few records, and what is encoded is kept where there is a cache;
- `app` and `serve`, which run until then.

So after ctrl-C during `apexgen train run.toml && apexgen export runs/mine --to merged`, what was saved is exported. A
second signal stops at once, without a word, and `&&` with it. Everything else, such as opening a model, `compare` of
points (`--world ring`), `sample`, `evaluate` and `synthesize`, ctrl-C stops with 130; SIGTERM ends it as it ends any
program: at once, without a word, which a shell tells as 143. Files appear whole or not at all then too; a hidden
`.partial-...` beside them may be left, and can be removed.

Where a command tells a result, `--json` prints it as JSON, alone on standard output; progress and remarks go to
standard error. It has values by name, not lines for people: of `doctor`, `well` and `python`, `packages`, `devices`,
`families`, or of a LoRA `ranks`, `scales`, `diffusers`, `comfyui`, what is `wrong` and more; of `app` and
`serve` the `url`, said as soon as it answers. Colours and bars are for terminals: there are no escape codes in a pipe,
and no colours where `NO_COLOR` is set.
"""


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words, such as ("evaluate", "table"), in help's order."""
    group = group or typer.main.get_command(app)
    for name in group.list_commands(None):
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def page() -> str:
    """The page."""
    lines, section = [HEAD], None
    for path, command in commands():
        under = next((title for title, names in SECTIONS.items() if path[0] in names), "More")
        if under != section:
            lines.append(f"## {under}\n")
            section = under
        said = " ".join(command.help.split("\n\n")[0].split())
        lines.append(f"### `apexgen {' '.join(path)}`\n\n{said}\n\n    {example(command)}\n")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
