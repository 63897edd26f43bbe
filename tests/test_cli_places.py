"""Places to write to: one that is empty, can't be made, or is of the wrong kind costs one line before any work."""

import pytest

from apexgen.config import load_run
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
