"""The commands of pages that are not walked whole: each runs, with tiny models and settings, or is named here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import snippets
from apexgen.app.studio import Studio
from apexgen.cli import main
from apexgen.config import load_run
from apexgen.export.diffusers import LORA_FILE
from apexgen.export.run import export_run
from apexgen.serve.server import warm_up
from pipelines import SIZE
from runs import finished_run
from snippets import ROOT, SHELL, without_launcher
from stored import write_folder
from together import free_port

PAGES = (
    "README", "docs/cli", "docs/start", "docs/encode", "docs/training", "docs/report", "docs/evaluation",
    "docs/troubleshooting", "docs/backbones", "docs/numbers", "docs/app", "docs/serving",
)  # fmt: skip
FAMILIES = {
    "flux": "flux", "lumina2": "lumina2", "qwen-image": "qwen", "sana": "sana", "stable-diffusion-3": "sd3",
    "z-image": "zimage",
}  # fmt: skip
ELSEWHERE = {  # pages whose commands are run in their order by other tests
    "docs/quickstart", "docs/export", "docs/add-an-objective", "docs/evaluation-statistics", "docs/evaluation-vlm",
}  # fmt: skip
NOT_RUN = {  # the beginning of a line's own words: why
    "demo": "minutes; test_cli.py goes the whole way",
    "scenes build": "hours; test_build.py",
    "compare --world (ring --seeds 3|scenes)": "all objectives' minutes, and hours; test_compare.py",
    "evaluate (geneval|dpg|wise|geneval2|import-judged)": "asks for a judge's weights or files; test_docs_judged.py",
    "evaluate (mjhq|fid|clip|diversity)": "asks for weights of features; test_docs_judged.py",
    "evaluate (timing|sweep)": "many calls of 50 steps; test_docs_judged.py",
}
TINY = (
    "model.path=path/to/a/pipeline", f"model.size={SIZE}", "model.rank=1", "model.weights=float32", "data.limit=3",
    "train.steps=4", "train.batch=2", "train.accumulate=1", "train.save_every=4", "train.preview_every=4",
    "train.preview_prompts=1",
)  # fmt: skip
CUT = {
    "train": TINY,
    "encode": TINY,
    "compare": ("--budget", "3010", "--teacher-steps", "2", "--seeds", "1"),
    "synthesize": ("--steps", "1"),
    "evaluate scenes": ("--per-task", "1", "--steps", "1"),
    "sample": ("--steps", "1"),
}
RUN = 'folder = "runs/short"\n[data]\nsource = "prompts.txt"\ncache = "cache"\n'


def commands(page):
    """The words after apexgen of each line of a page; what several processes share, one does alone."""
    for block in snippets.blocks(ROOT / f"{page}.md"):
        for words in block.commands() if block.language in SHELL else ():
            words = words if "=" in words[0] else without_launcher(words)
            if words[0] == "apexgen" and "--help" not in words:
                yield words[1:]


def launched(launchers):
    """Each launcher of the pages, or what is set before a command, with its first line."""
    shells = [block for block in snippets.EVERY if block.language in SHELL and block.page.name != "design.md"]
    lines = {}
    for words in (words for block in shells for words in block.commands() if "apexgen" in words):
        given = without_launcher(words)
        if words != given and ("=" not in words[0]) == launchers:
            lines.setdefault(tuple(words[: -len(given)]), words)
    return list(lines.values())


def is_run(words):
    return not any(re.match(rf"{start}\b", " ".join(words)) for start in NOT_RUN)


@pytest.fixture(scope="module")
def world(folders, tmp_path_factory):
    """A folder where the names that the pages use are real things."""
    place = tmp_path_factory.mktemp("world")
    for name in ("path/to/a/pipeline", "path/to/a/diffusers/pipeline"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).symlink_to(folders["sd3"])
    (place / "prompts.txt").write_text("a red circle\ntwo blue rings\nthree white squares\n")
    (place / "run.toml").write_text(RUN)
    shutil.copy(ROOT / "tests/authors/sd35.yaml", place / "sd35_lora_2order.yaml")
    demo = finished_run(place / "apexgen-demo", "scenes")
    export_run(demo, "diffusers", demo / "export")
    finished_run(place / "runs/other", "scenes")
    mine = finished_run(place / "runs/mine", folders["sd3"], step=400)
    (mine / "checkpoints/best.json").write_text('{"step": 400}')
    shutil.copy(export_run(mine, "diffusers", place / "exported").folder / LORA_FILE, place / "lora.safetensors")
    return place


@pytest.fixture(autouse=True)
def unseen(monkeypatch):
    """Pages and servers open their model and draw, but wait for nobody: test_app.py and test_serve.py do. Worlds of
    few points are judged."""

    def show(model, guidance, *_):
        Studio(model, guidance, Path()).draw(["a red ring"], 0, 1, 1)

    monkeypatch.setattr("apexgen.compare.plane.BATCH", 16)  # a contest's budget covers warm-ups of hundreds of steps
    monkeypatch.setattr("apexgen.compare.plane.JUDGED", 400)
    monkeypatch.setattr("apexgen.app.launch.run_app", show)
    monkeypatch.setattr("apexgen.serve.server.serve", lambda offer, *_: warm_up(offer))


def cut(words):
    """What makes a command short; a run goes into a folder of its own."""
    added = CUT.get(words[0], CUT.get(" ".join(words[:2]), ()))
    if added is not TINY:
        return added
    apex = load_run(Path("run.toml")).objective["name"] == "apex"
    folder = any(word.startswith("folder=") for word in words)
    return (*TINY, *["objective.warmup=1"] * apex, *["folder=runs/short"] * (not folder))


@pytest.mark.parametrize("page", FAMILIES)
def test_the_run_file_of_a_familys_page_is_planned(page, folders, monkeypatch, tmp_path, capsys):
    """With the model of the page a tiny one of its family."""
    monkeypatch.chdir(tmp_path)
    [file] = [block for block in snippets.blocks(ROOT / f"docs/backbones/{page}.md") if block.file == "run.toml"]
    Path("run.toml").write_text(file.text)
    Path("prompts.txt").write_text("a red circle\ntwo blue rings\nthree white squares\n")
    for words in commands(f"docs/backbones/{page}"):
        monkeypatch.setattr(sys, "argv", ["apexgen", *words, *cut(words), f"model.path={folders[FAMILIES[page]]}"])
        main()
        assert "trainable parameters" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page, world, monkeypatch, tmp_path):
    shutil.copytree(world, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    for block in snippets.blocks(ROOT / f"{page}.md"):
        if block.file == "run.toml":
            Path("run.toml").write_text(block.text)
            if 'source = "pictures"' in block.text:
                write_folder(Path("pictures"), {str(number): "a red circle" for number in range(3)})
    ran = 0
    for words in filter(is_run, commands(page)):
        if words[0] == "init":
            Path(words[words.index("--out") + 1]).unlink(missing_ok=True)
        if words[:2] == ["evaluate", "table"] and not list(Path().glob("eval/*")):
            monkeypatch.setattr(sys, "argv", "apexgen evaluate scenes scenes --per-task 1 --out eval/before".split())
            main()
        given = [str(file) for word in words for file in (sorted(Path().glob(word)) if "*" in word else [word])]
        monkeypatch.setattr(sys, "argv", ["apexgen", *given, *cut(words)])
        main()  # a mistake would exit
        ran += 1
    assert ran


@pytest.mark.parametrize("words", launched(True), ids=" ".join)
def test_a_launchers_line_runs_with_two_processes(words, world, tmp_path):
    shutil.copytree(world, tmp_path / "here", symlinks=True)
    given = without_launcher(words)
    program, *launcher = ["2" if word == "8" else word for word in words[: -len(given)]]
    port = ["--main_process_port" if program == "accelerate" else "--master-port", str(free_port())]
    first = launcher[0] == "launch"
    launcher[first:first] = port
    ran = subprocess.run(
        [Path(sys.executable).with_name(program), *launcher, *given, *TINY, "objective.warmup=1"],
        cwd=tmp_path / "here", timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert list((tmp_path / "here/runs/short/checkpoints").glob("*/student.safetensors"))
    assert load_run(tmp_path / "here/runs/short/config.toml").train.processes == 2


@pytest.mark.parametrize("words", launched(False), ids=" ".join)
def test_a_command_takes_what_is_set_before_it(words, world, monkeypatch, tmp_path, capsys):
    shutil.copytree(world, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    given = without_launcher(words)
    assert "--dry-run" in given  # or it would wait for the others
    for name, value in (word.split("=", 1) for word in words[: -len(given)]):
        monkeypatch.setenv(name, value)
    short = [word for word in TINY if "rank" not in word or "model.tune=full" not in given]
    monkeypatch.setattr(sys, "argv", [*given, *short, "objective.warmup=1"])
    main()
    assert re.search(rf"\b{os.environ['WORLD_SIZE']}\b", capsys.readouterr().out)
    assert not list(Path("runs/short").glob("checkpoints/*/student.safetensors"))


def test_each_exception_is_one_of_some_page():
    every = [" ".join(words) for page in PAGES for words in commands(page)]
    for start in NOT_RUN:
        assert any(re.match(rf"{start}\b", words) for words in every), start


def test_every_page_that_has_commands_is_run():
    of_families = {f"docs/backbones/{page}" for page in FAMILIES}
    pages = {str(page.relative_to(ROOT).with_suffix("")) for page in snippets.PAGES} - {"docs/design"}  # a tree
    assert {page for page in pages if any(commands(page))} == {*PAGES, *of_families, *ELSEWHERE}
