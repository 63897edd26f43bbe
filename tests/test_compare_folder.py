"""A contest's folder: what it holds of another world stays, and one that can't be made is told before any training."""

import pytest
from rich.console import Console

from apexgen.compare import compare
from apexgen.compare.terms import load_terms


def small(world):
    return load_terms(None, ["lcm"], {"world": world, "budget": 60, "seeds": 1, "teacher_steps": 2})


def test_a_contest_of_another_world_is_not_replaced(tmp_path):
    compare(small("ring"), tmp_path, Console(quiet=True))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError) as error:
        compare(small("checkerboard"), tmp_path, Console(quiet=True))
    told = f'{tmp_path} holds a contest of world = "ring"; write --folder {tmp_path}-checkerboard, or another'
    assert str(error.value) == told
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    compare(small("ring"), tmp_path, Console(quiet=True))


@pytest.mark.parametrize("folder", ["file", "file/new/one"])
def test_a_folder_that_can_not_be_made_is_refused_before_any_training(tmp_path, capsys, folder):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError) as error:
        compare(small("ring"), tmp_path / folder, Console())
    why = f"{tmp_path / 'file'} is a file, not a folder; write --folder another"
    assert str(error.value) == f"--folder {tmp_path / folder}: {why}"
    assert not capsys.readouterr().out and (tmp_path / "file").read_text() == "mine"
