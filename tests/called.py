"""Commands of apexgen, called in this process or in one of their own, and results for them to show."""

import os
import subprocess
import sys

from apexgen.cli import main


def apexgen(*arguments, **environment):
    """A real process, its output piped."""
    return subprocess.run(
        [sys.executable, "-m", "apexgen", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | environment, timeout=120,
    )  # fmt: skip


def call(monkeypatch, capsys, *arguments):
    """A command in this process: its exit code and what it says, on both outputs."""
    monkeypatch.setattr(sys, "argv", ["apexgen", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return stop.code, *capsys.readouterr()
    return 0, *capsys.readouterr()


def save_results(folder):
    """A file of results, whose model's name is one that a console could take for colours."""
    from apexgen.evaluate.result import Result, save_result

    told = Result(benchmark="GenEval", judge="a judge", model="[red]mine[/red]", scores={"overall": 0.5}, n=4)
    save_result(told, folder / "result.json")
    return folder / "result.json"
