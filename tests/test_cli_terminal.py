"""The commands on a terminal: escape codes and colours there alone, a word of what takes long, ctrl-C in a line."""

import ast
import os
import pty
import re
import signal
import subprocess
import sys
import time
from multiprocessing.reduction import DupFd
from pathlib import Path

import pytest
from forks import CONTEXT, forked, start

from apexgen import cli
from apexgen.cli import _goes_on
from apexgen.cli.app import console
from called import apexgen_forked
from small import BUILD, SHORT
from together import command as take_command

ESCAPE = "\x1b"
STOPPED = "stopped; what was saved, if anything, is whole, and the same command"


def on_a_terminal(*words, **environment):
    """What a real Python says on a terminal of its own."""
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdin=slave, stdout=slave, stderr=slave, env=clean | {"TERM": "xterm-256color"} | environment,
    )  # fmt: skip
    said = read(master, slave)
    assert process.wait() == 0
    return said


def forked_on_a_terminal(*arguments):
    """The same of a command, whose imports are this process's own."""
    master, slave = pty.openpty()
    process = CONTEXT.Process(target=_take_over, args=(DupFd(slave), arguments))
    process.start()
    said = read(master, slave)
    process.join()
    assert process.exitcode == 0, said
    return said


def _take_over(terminal, arguments):
    from rich.console import Console

    from apexgen import progress

    forked()
    slave = terminal.detach()
    for number in (0, 1, 2):
        os.dup2(slave, number)
    os.close(slave)  # or who reads waits for ever
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    os.environ["TERM"] = "xterm-256color"
    progress.STDERR = Console(stderr=True)  # made when the process was another's, without a terminal
    console.is_interactive = True  # the same of standard output's
    take_command(*arguments)


def read(master, slave):
    """All that is written on a terminal until nobody has it open."""
    os.close(slave)
    said = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(master)
    return said.decode()


def test_escape_codes_are_for_terminals_and_colours_for_who_wants_them(results):
    table = ("-m", "apexgen", "evaluate", "table", results)
    busy = ("-c", "import time; from apexgen.cli.app import busy\nwith busy('drawing'): time.sleep(0.3)")
    colour = re.compile(r"\x1b\[[0-9;]*3\dm")
    for words in (table, busy):
        assert ESCAPE in on_a_terminal(*words)
        assert not colour.search(on_a_terminal(*words, NO_COLOR="1"))
        piped = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=True)
        assert ESCAPE not in piped.stdout + piped.stderr
    assert colour.search(on_a_terminal(*busy))


def test_what_takes_long_says_what_it_does_on_a_terminal_and_nothing_elsewhere(tmp_path):
    ring = ("--world", "ring", "--objectives", "flow_matching", "--budget", "60", "--seeds", "1")
    compare = ("compare", *ring, "--teacher-steps", "30", "--folder", tmp_path / "compare")
    sample = ("sample", "scenes", "-p", "a red ring", "--steps", "3", "--out", tmp_path / "a.png")
    scenes = ("scenes", "build", tmp_path / "built", *BUILD)
    file = tmp_path / "run.toml"
    file.write_text(f'folder = "{tmp_path / "run"}"\ndata.cache = "{tmp_path / "cache"}"\n')
    train, opened = ("train", file, *SHORT, "train.steps=2"), ("starting", "opening the model")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ring\ntwo rings\nthree rings\n")
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(
        f"model: {{}}\nmethod: {{}}\ndata: {{train_dirs: [{prompts}]}}\ntrain: {{num_train_epochs: 12}}\n"
    )
    synthesize = (
        "synthesize",
        "scenes",
        "--prompts",
        prompts,
        "--out",
        tmp_path / "drawn",
        "--steps",
        "12",  # what is between takes longer than from one look at the bar to the next
        "--shard",
        "2",
    )
    for words, doing in (
        (("encode", *train[1:]), opened),
        (train, (*opened, "making the student", "training")),
        (("report", tmp_path / "run"), ("starting", "reading the runs")),
        (compare, ("training the teacher", "judging the teacher", "training flow_matching, seed 1", "judging flow")),
        (sample, (*opened, "drawing")),
        (synthesize, (*opened, "drawing", "2/3", "3/3")),
        (("init", "--from", theirs, "--out", tmp_path / "theirs.toml"), ("starting", "counting the records")),
        (scenes, ("drawing pictures", "training the autoencoder", "training the transformer")),
    ):
        said = forked_on_a_terminal(*map(str, words))
        assert all(what in said for what in doing), (words, said)
        assert "Token indices" not in said, "a notice of the libraries', of a text that no encoder is given"
    assert apexgen_forked(tmp_path, *sample) == (0, f"{tmp_path / 'a.png'}\n", "")


def test_a_command_says_that_it_starts_while_it_imports():
    files = Path(cli.__file__).parent.glob("*.py")
    functions = [
        node for file in files for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    bare = {
        function.name
        for function in functions
        if function.decorator_list and any(isinstance(line, ast.Import | ast.ImportFrom) for line in function.body)
    }
    assert bare == {"show_table"}  # which is there at once


def test_ctrl_c_leaves_a_sentence_and_130(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n" * 1000)
    out = tmp_path / "pictures"
    log, errors = tmp_path / "log", tmp_path / "errors"
    process = start(log, "sample", "scenes", "--prompts", str(prompts), "--out", str(out), errors=errors)
    while process.is_alive() and not list(out.glob("*.png")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert errors.read_text().splitlines()[-1] == f"{STOPPED} goes on from it"
    assert not list(out.glob(".partial-*"))


def test_ctrl_c_before_anything_is_saved_does_not_say_that_something_was(run, monkeypatch, tmp_path):
    from apexgen import distill

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(distill, "distill", stopped)
    (tmp_path / "run.toml").write_text("")
    assert run("train", tmp_path / "run.toml") == (130, "", f"{STOPPED} goes on from it\n")


@pytest.mark.parametrize(
    ("words", "inside"),
    [
        ("compare --world ring --objectives flow_matching --budget 60 --folder new", "apexgen.compare.plane.descend"),
        ("sample scenes -p ring --out new.png", "apexgen.drawer.make_pictures"),
        ("evaluate scenes scenes --per-task 1 --out new", "apexgen.drawer.make_pictures"),
        ("synthesize scenes --prompts prompts.txt --out new --steps 1", "apexgen.synthesize.make_pictures"),
    ],
)
def test_what_notes_no_signal_is_stopped_by_it(words, inside, run, monkeypatch, tmp_path):
    """As docs/cli.md has it: ctrl-C is 130, SIGTERM the system's."""
    found = []

    def stopped(*_, **__):
        found.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a red ring\n")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(inside, stopped)
    assert run(*words.split())[0] == 130
    assert found == [before]


def test_ctrl_c_while_modules_are_read_is_told_in_a_line_too():
    finder = "class Finder:\n    def find_spec(name, *_):\n        if name == 'typer': raise KeyboardInterrupt"
    start = "sys.meta_path.insert(0, Finder)\nrunpy.run_module('apexgen', run_name='__main__')"
    code = f"import runpy, sys\n{finder}\n{start}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "stopped before anything was begun\n")


def test_what_ctrl_c_says_of_going_on_is_so():
    for words in (
        "compare",
        "demo",
        "scenes build x",
        "evaluate sweep a",
        "sample x --out pictures",
        "sample x --out=a",
    ):
        assert _goes_on(words.split()), words
    for words in ("sample x", "sample x --out a.png", "evaluate timing a", "probe scenes", "app", "export x", ""):
        assert not _goes_on(words.split()), words
