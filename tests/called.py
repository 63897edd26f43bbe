"""Commands of apexgen, called in this process or in one of their own, and results for them to show."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager

from forks import start

from apexgen.cli import main


def apexgen(*arguments, **environment):
    """A real process, its output piped."""
    return subprocess.run(
        [sys.executable, "-m", "apexgen", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | environment, timeout=120,
    )  # fmt: skip


def apexgen_forked(folder, *arguments):
    """A process without its imports, what it says going to files of a folder: its exit code, and both outputs."""
    outputs = folder / "said", folder / "said-wrong"
    process = start(outputs[0], *map(str, arguments), errors=outputs[1])
    process.join(120)
    return process.exitcode, *(file.read_text() for file in outputs)


def wait_to_say(process, log, pattern):
    """What a process that goes on says in a line of its log."""
    while not (said := re.search(rf"{pattern}\n", log.read_text() if log.is_file() else "")):
        assert process.is_alive(), f"it ended and did not say {pattern}"
        time.sleep(0.02)
    return said


@contextmanager
def addressed(folder, *arguments):
    """The url that a command tells with --json, and what it will have said when the block ends it: beside JSON."""
    log, wrong, farewell = folder / "log", folder / "wrong", []
    process = start(log, *map(str, arguments), "--json", errors=wrong)
    try:
        wait_to_say(process, log, r"\}")
        url = json.loads(log.read_text())["url"]
        yield url, farewell
        process.terminate()
        process.join(30)
    finally:
        process.kill()
    assert process.exitcode == 0 and json.loads(log.read_text()) == {"url": url}
    farewell += wrong.read_text().splitlines()


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
