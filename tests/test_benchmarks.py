"""A benchmark that is asked what it does says so, and does not run."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = sorted(Path("benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_help_is_shown_and_nothing_runs(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(str(path.parent))  # as a script has it

    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")

    assert ended.value.code == 0
    assert f"python benchmarks/{path.name}" in capsys.readouterr().out
