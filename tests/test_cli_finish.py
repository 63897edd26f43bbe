"""The commands' manners: help, examples that parse, completion, exit codes, JSON alone, tables, a light start."""

import json
import os
import platform
import shlex
import subprocess
import sys

import pytest
import typer

from apexgen.backbones.quiet import UNTOLD
from apexgen.cli.app import SECTIONS, app
from called import apexgen
from cli_page import PAGE, commands, example, page
from small import BUILD

HEAVY = ("torch", "diffusers", "transformers", "numpy", "pydantic", "PIL", "scipy", "jinja2", "yaml", "huggingface_hub")


COMMANDS = dict(commands())
TOP = typer.main.get_command(app)
GROUPS = {(): TOP} | {(name,): one for name, one in TOP.commands.items() if hasattr(one, "commands")}


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
        assert "json" in options, path


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
    for wrong, told in {("--weights", "bf16"): "model.weights", ("--guidance", "-3"): "--guidance -3: at least 0",
                        ("--guidance", "nan"): "--guidance nan: at least 0"}.items():  # fmt: skip
        code, _, said = run("synthesize", "scenes", *to[:3], tmp_path / "none", *wrong)
        assert code == 2 and told in said and not (tmp_path / "none").exists()


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
    code, said, _ = run("scenes", "build", tmp_path / "one", *BUILD, "--json")
    told = json.loads(said)
    assert code == 0 and (told["folder"], told["flow_steps"]) == (str(tmp_path / "one"), 2)
    code, said, _ = run("scenes", "build", tmp_path / "two", *BUILD, "--from", tmp_path / "one")
    assert code == 0 and said.splitlines()[-1].startswith(f"{tmp_path / 'two'}: ")


def test_no_figure_of_a_table_is_cut_off(run, tmp_path):
    from apexgen.evaluate.result import Result, save_result

    names = ("single_object", "two_object", "counting", "colors", "position", "color_attr", "overall")
    scores = dict.fromkeys(names, 0.123)
    save_result(
        Result(benchmark="a", judge="b", model="a long name student@1", scores=scores, n=6), tmp_path / "one.json"
    )
    code, out, _ = run("evaluate", "table", tmp_path / "one.json")
    assert code == 0 and all(name in out for name in names) and "…" not in out
