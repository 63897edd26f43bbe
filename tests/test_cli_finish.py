"""The commands' manners: help, examples that parse, completion, exit codes, JSON alone, colours, a light start."""

import ast
import json
import os
import platform
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from multiprocessing.reduction import DupFd
from pathlib import Path

import pytest
import typer
from kills import CONTEXT, forked

from apexgen import cli
from apexgen.backbones.quiet import UNTOLD
from apexgen.cli import _goes_on, main
from apexgen.cli.app import SECTIONS, app, console
from cli_page import PAGE, commands, example, page
from small import SHORT
from together import command as take_command

ESCAPE = "\x1b"
STOPPED = "stopped; what was saved, if anything, is whole, and the same command"
HEAVY = ("torch", "diffusers", "transformers", "numpy", "pydantic", "PIL", "scipy", "jinja2", "yaml", "huggingface_hub")


COMMANDS = dict(commands())
TOP = typer.main.get_command(app)
GROUPS = {(): TOP} | {(name,): one for name, one in TOP.commands.items() if hasattr(one, "commands")}


def apexgen(*arguments, **environment):
    """A real process, its output piped."""
    return subprocess.run(
        [sys.executable, "-m", "apexgen", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | environment, timeout=120,
    )  # fmt: skip


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


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["apexgen", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return call


@pytest.fixture
def results(tmp_path):
    from apexgen.evaluate.result import Result, save_result

    told = Result(benchmark="GenEval", judge="a judge", model="[red]mine[/red]", scores={"overall": 0.5}, n=4)
    save_result(told, tmp_path / "result.json")
    return tmp_path / "result.json"


def test_help_lists_every_command_in_a_section():
    top = {path[0] for path in COMMANDS}
    assert top <= {name for names in SECTIONS.values() for name in names}


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_help_says_a_whole_sentence_of_each_command(group, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = " ".join(run(*group, "--help")[1].split())
    inside = [path for path in COMMANDS if path[:-1] == group]
    for path in inside:
        sentence = " ".join(COMMANDS[path].help.split("\n\n")[0].split()).partition(". ")[0].removesuffix(".")
        assert f"{path[-1]} {sentence}." in said
    assert inside and "..." not in said.replace("ARGS]...", "")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_that_parses(path):
    command = COMMANDS[path]
    program, *words = shlex.split(example(command))
    assert program == "apexgen" and tuple(words[: len(path)]) == path
    command.make_context(path[-1], words[len(path) :])  # raises for an option that is not there


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_every_group_shows_an_example_that_parses(group, run):
    code, said, _ = run(*group, "--help")
    words = shlex.split(example(GROUPS[group]))[1:]
    path = next(path for path in COMMANDS if tuple(words[: len(path)]) == path)
    assert code == 0 and path[: len(group)] == group and " ".join(words) in " ".join(said.split())
    COMMANDS[path].make_context(path[-1], words[len(path) :])


def test_a_group_alone_shows_its_help(run):
    code, out, error = run("evaluate")
    assert (code, out) == (2, "") and "Example: apexgen evaluate sweep" in error


def test_commands_have_what_is_common_to_them():
    for path, command in COMMANDS.items():
        options = {parameter.name for parameter in command.params}
        assert "lora" not in options or "checkpoint" in options, f"{path}: a run's checkpoint can't be chosen"
        assert "json" in options or path in {("app",), ("serve",)}, path


def test_what_was_encoded_and_drawn_is_told_in_json(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("two rings\na red circle\ntwo rings\n")
    (tmp_path / "run.toml").write_text(f'data = {{source = "{tmp_path}/prompts.txt", cache = "{tmp_path}/cache"}}')
    for encoded in (2, 0):
        told = json.loads(run("encode", tmp_path / "run.toml", "--json")[1])
        assert (told["records"], told["captions"]) == (3, 2)
        assert told["texts"] == {"encoded": encoded, "reused": 2 - encoded, "bad": 0}
    to = ("--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "drawn")
    how = ("--steps", "1", "--shard", "2", "--size", "32x64")
    for made in (2, 0):
        told = json.loads(run("synthesize", "scenes", *to, *how, "--json")[1])
        assert told == {"out": str(tmp_path / "drawn"), "pictures": 3, "tars": 2, "made": made}
    index = tmp_path / "drawn" / "index.json"
    written = json.loads(index.read_text())
    assert written["size"] == "32x64" and written.pop("weights") == "float32"
    index.write_text(json.dumps(written))  # of a folder made before there was a choice
    assert run("synthesize", "scenes", *to, *how)[0] == 0
    code, _, said = run("synthesize", "scenes", *to, *how, "--weights", "bfloat16")
    assert code == 2 and "was begun with weights = 'float32', not 'bfloat16'; write --out elsewhere" in said
    to = (*to[:3], tmp_path / "new")
    assert run("synthesize", "scenes", *to, *how, "--weights", "bfloat16")[0] == 0
    code, _, said = run("synthesize", "scenes", *to[:3], tmp_path / "none", "--weights", "bf16")
    assert code == 2 and "model.weights" in said and not (tmp_path / "none").exists()


def test_the_page_of_commands_is_what_help_says():
    assert PAGE.read_text() == page(), "write it anew: python tests/cli_page.py"


def test_the_start_is_light():
    for code in ("import apexgen", "import sys; sys.argv = ['apexgen', '--help']; import apexgen.cli as c; c.main()"):
        found = f"{code}\nimport sys\nprint('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
        said = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True).stdout
        assert said.splitlines()[-1] == "HEAVY []"


def test_the_libraries_are_forbidden_to_send_figures_before_they_are_imported():
    code = "import sys; sys.argv = ['apexgen', '--version']; import apexgen.cli as c; c.main()"
    found = f"{code}\nfrom huggingface_hub import constants\nprint(constants.HF_HUB_DISABLE_TELEMETRY)"
    allowed = {key: value for key, value in os.environ.items() if key not in (*UNTOLD, "DISABLE_TELEMETRY")}
    said = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True, env=allowed)
    assert said.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize(("line", "word"), [("apexgen do", "doctor"), ("apexgen evaluate sw", "sweep")])
def test_the_shell_completes(line, word):
    words = line.split()
    asked = {"_APEXGEN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    assert apexgen(**asked).stdout.split() == [word]


def test_the_shell_is_told_how_to_complete():
    said = apexgen(_APEXGEN_COMPLETE="source_bash").stdout  # --show-completion, in whichever shell tests run
    assert "_APEXGEN_COMPLETE=complete_bash" in said and "complete -o default -F" in said


def test_the_version_is_the_package_s(run):
    from apexgen import __version__

    assert run("--version") == (0, f"apexgen {__version__}\n", "")


def test_exit_codes(run, tmp_path, results):
    assert run("evaluate", "table", results)[0] == 0
    code, out, error = run("evaluate", "table", tmp_path / "missing.json")
    assert (code, out, error.count("\n")) == (2, "", 1)
    code, out, error = run("evaluate", "tabel")
    assert code == 2 and "tabel" in error and out == ""


def test_json_is_alone_on_stdout_and_the_same_command_speaks_to_people_without_it(results):
    piped = apexgen("evaluate", "table", results, "--json")
    [[told]] = json.loads(piped.stdout)
    assert told["model"] == "[red]mine[/red]" and told["scores"] == {"overall": 0.5}
    assert "GenEval" in apexgen("evaluate", "table", results).stdout


def test_a_sample_tells_what_it_drew(run, tmp_path):
    out = tmp_path / "a.png"
    code, said, _ = run("sample", "scenes", "-p", "a red circle", "--steps", 2, "--out", out, "--json")
    assert code == 0
    told = json.loads(said)
    assert (told["out"], told["pictures"], told["evaluations"]) == (str(out), 1, 2) and out.is_file()
    assert run("sample", "scenes", "-p", "a red circle", "--out", out)[1] == f"{out}\n"  # --json does not stick


def test_a_probe_and_a_doctor_speak_json(run):
    code, said, _ = run("probe", "scenes", "--shift", "-1,0", "--json")
    rows = json.loads(said)
    assert code == 0 and rows[0]["pooled"] is None and {"verdict", "advice"} <= rows[0].keys()
    code, said, _ = run("doctor", "--json")
    told = json.loads(said)
    assert code == 0 and told["well"] is True and told["python"] == platform.python_version()
    assert told["families"]["SANA"]["well"] and told["devices"][0]["name"] == "cpu"
    assert f"python        {told['python']}\n" in run("doctor")[1]


def test_a_built_pipeline_is_told_of_and_its_recipe_as_json(run, tmp_path):
    built = ("flow_steps=1", "flow_pictures=12", "autoencoder_pictures=12", "autoencoder_steps=1", "decoder_steps=1")
    code, said, _ = run("scenes", "build", tmp_path / "one", *built, "text_steps=1", "--json")
    told = json.loads(said)
    assert code == 0 and (told["folder"], told["flow_steps"]) == (str(tmp_path / "one"), 1)
    code, said, _ = run("scenes", "build", tmp_path / "two", *built, "text_steps=1")
    assert code == 0 and said.splitlines()[-1].startswith(f"{tmp_path / 'two'}: ")


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
    built = ("flow_steps=2", "flow_pictures=12", "autoencoder_pictures=12", "autoencoder_steps=2", "decoder_steps=2")
    scenes = ("scenes", "build", tmp_path / "built", *built, "text_steps=2")
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
        "1",
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
    piped = apexgen(*sample)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, f"{tmp_path / 'a.png'}\n", "")


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
    command = [sys.executable, "-m", "apexgen", "sample", "scenes", "--prompts", prompts, "--out", out]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background have it ignored
    )  # fmt: skip
    while process.poll() is None and not list(out.glob("*.png")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == f"{STOPPED} goes on from it"
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


def test_no_figure_of_a_table_is_cut_off(run, tmp_path):
    from apexgen.evaluate.result import Result, save_result

    names = ("single_object", "two_object", "counting", "colors", "position", "color_attr", "overall")
    scores = dict.fromkeys(names, 0.123)
    save_result(
        Result(benchmark="a", judge="b", model="a long name student@1", scores=scores, n=6), tmp_path / "one.json"
    )
    code, out, _ = run("evaluate", "table", tmp_path / "one.json")
    assert code == 0 and all(name in out for name in names) and "…" not in out
