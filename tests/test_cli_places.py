"""Places to write to: one that is empty, can't be made, or is of the wrong kind costs one line before any work."""

import os
from pathlib import Path

import pytest

from apexgen.config import load_run
from apexgen.files import check_file, check_folder
from called import call

EMPTY = {
    "folder": 'folder: an empty path; write folder = "runs/mine"',
    "model.path": 'model.path: an empty path; write path = "FOLDER", or remove it for the embedded pipeline',
    "data.source": 'data.source: an empty path; write source = "FOLDER", or remove it for the embedded world',
    "data.cache": 'data.cache: an empty path; write cache = "FOLDER", or remove it to encode in memory',
}


def refused(monkeypatch, capsys, folder, *arguments):
    """The line of a command that is refused, called in a folder that it leaves as it was."""
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    code, said, line = call(monkeypatch, capsys, *arguments)
    assert code == 2 and not said and line.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
    return line.removeprefix("apexgen: ").rstrip()


@pytest.mark.parametrize("key", EMPTY)
@pytest.mark.parametrize("written", ["", " "])
def test_an_empty_path_is_not_the_folder_here(key, written):
    with pytest.raises(ValueError) as error:
        load_run(None, [f"{key}={written}"])
    assert str(error.value) == EMPTY[key]


@pytest.mark.parametrize("words", [("--out", ""), ("--out=",)])
@pytest.mark.parametrize(
    "command", ["evaluate scenes scenes", "sample scenes -p x", "export run", "init scenes", "evaluate fid a b"]
)
def test_an_option_without_a_word_is_not_the_folder_here(monkeypatch, capsys, tmp_path, command, words):
    line = refused(monkeypatch, capsys, tmp_path, *command.split(), *words)
    assert line == "--out: an empty path; write --out PATH, or --out . for the folder here"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train run.toml folder=file", "folder = file: file is a file, not a folder; write folder = another"),
        (
            "train run.toml folder=file/x",
            "folder = file/x: file is a file, not a folder; write folder = another",
        ),
        ("train run.toml data.cache=file", "data.cache = file: file is a file"),
        ("train run.toml data.cache=file --dry-run", "data.cache = file: file is a file"),
        ("encode run.toml data.cache=file", "data.cache = file: file is a file"),
        ("sample scenes -p x --out file", "--out file: file is a file, not a folder; write --out another"),
        ("sample scenes -p x --out file/x", "--out file/x: file is a file"),
        ("sample scenes -p x --out new/x.jpg", "--out new/x.jpg: a grid is a .png; write --out new/x.png"),
        ("sample scenes -p x --out x.PNG", "--out x.PNG: a grid is a .png; write --out x.png"),
        ("evaluate scenes scenes --out file", "--out file: file is a file"),
        ("evaluate diversity scenes --prompts prompts.txt --out file/x", "--out file/x: file is a file"),
        ("evaluate timing scenes --out file", "--out file: file is a file"),
        ("evaluate dpg scenes --data data --judge judge --out file", "--out file: file is a file"),
        (
            "evaluate geneval-results file --judge x --model x --out run",
            "--out run is a folder; write --out run/result",
        ),
        ("synthesize scenes --prompts file --out file", "--out file: file is a file"),
        ("report run --out run", "--out run is a folder; write --out run/report.html"),
    ],
)
def test_what_can_not_be_written_is_refused_before_any_work(monkeypatch, capsys, tmp_path, words, line):
    (tmp_path / "run.toml").write_text('folder = "new"\n')
    (tmp_path / "file").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("")
    assert refused(monkeypatch, capsys, tmp_path, *words.split()).startswith(line)


def test_a_place_is_made_where_the_nearest_folder_above_it_can_be_written_to(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check_folder(tmp_path / "new" / "one", "--out")
    check_folder(Path("new/one"), "--out")
    check_file(Path("new.html"), "--out", "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="to whom every folder can be written")
def test_a_folder_that_is_read_only_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match=r"^folder = .*/new: .* can't be written to; write folder = another$"):
        check_folder(tmp_path / "new", "folder =")
