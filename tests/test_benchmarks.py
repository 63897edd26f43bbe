"""A benchmark that is asked what it does says so, and does not run; one of real sizes runs narrow where no GPU is."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

SHARED = {Path("benchmarks/told.py"), Path("benchmarks/forks.py")}  # what they have in common
BENCHMARKS = sorted({*Path("benchmarks").glob("*.py")} - SHARED)
TELL = ("step", "encode", "loader", "serving", "startup", "demo_cost", "kills")


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_help_is_shown_and_nothing_runs(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(str(path.parent))  # as a script has it

    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")

    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"python benchmarks/{path.name}" in said and ("--out OUT" in said or path.stem not in TELL)


def test_figures_are_printed_and_written_beside_the_machine(monkeypatch, capsys, tmp_path):
    out = tmp_path / "results" / "startup.json"
    monkeypatch.setattr(sys, "argv", ["startup.py", "--repeats", "1", "--out", str(out)])
    runpy.run_path("benchmarks/startup.py", run_name="__main__")
    printed, written = json.loads(capsys.readouterr().out), json.loads(out.read_text())
    assert "torch" in written.pop("machine") and written == printed
    assert printed["python"]["times as long as python"] == 1 and "apexgen --help" in printed


def real_size(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["real_size.py", *map(str, arguments)])
    runpy.run_path("benchmarks/real_size.py", run_name="__main__")


def test_real_sizes_run_narrow_and_tell_a_ratio_of_each_case(monkeypatch, capsys, tmp_path):
    real_size(monkeypatch, "--tiny", "--rounds", 8, "--out", tmp_path / "results")

    report = json.loads((tmp_path / "results" / "real_size.json").read_text())
    assert report["tiny"] and set(report["cases"]) == {"SANA, LoRA", "SANA, full tuning", "Qwen-Image, LoRA"}
    for name, case in report["cases"].items():
        seconds = case["seconds"]
        assert set(seconds) == {"apex", "flow_matching", "twin_flow"} | ({"dmd"} if "SANA" in name else set())
        for told in (case["sampling over the network alone"], *(other["time"] for other in case["apex over"].values())):
            low, high = told["95 %"]
            assert low <= told["median"] <= high
        assert seconds["apex"] > seconds["flow_matching"] and case["images a second in one step"]["apex"] > 0
        assert (case["trained"] == case["parameters"]) == name.endswith("full tuning")
    assert capsys.readouterr().out.endswith((tmp_path / "results" / "real_size.md").read_text())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize(("arguments", "said"), [((), "write --tiny"), (("--tiny", "--rounds", 3), "write --rounds 8")])
def test_real_sizes_are_refused_where_they_can_not_be_measured(monkeypatch, capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        real_size(monkeypatch, *arguments)
    assert ended.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]
