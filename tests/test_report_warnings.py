"""What a report warns of: collapse, variety that is lost, steps left out; and of nothing else."""

import json

import pytest

from apexgen.report import write_report
from apexgen.report.folder import read_folder
from apexgen.report.warnings import warnings
from reports import begun, entry, preview


@pytest.fixture
def folder(tmp_path):
    return begun(tmp_path / "run")


@pytest.mark.parametrize(("diversity", "word"), [(0.8, None), (0.7, "Diversity loss"), (0.2, "Collapse")])
def test_variety_that_is_lost_while_it_trains_is_told(tmp_path, diversity, word):
    """By the newest checkup after the warm-up, before previews are looked at."""
    folder = begun(tmp_path / "run", config='[objective]\nname = "apex"\nwarmup = 2\n')
    lines = [json.dumps({"step": step, "one_step_diversity": said}) for step, said in ((2, 0.1), (4, diversity))]
    for checked in (lines[:1], lines):
        (folder / "metrics.jsonl").write_text("\n".join(checked))
        said = warnings(read_folder(folder))
    assert said == [] if word is None else said[0].startswith(f"{word}: at step 4 two samples of a prompt")
    (folder / "metrics.jsonl").write_text(lines[0])
    assert warnings(read_folder(folder)) == []


def test_what_is_wrong_is_said_and_nothing_else(folder):
    assert warnings(read_folder(folder)) == []
    preview(folder, 0)
    assert warnings(read_folder(folder)) == []
    preview(folder, 200, flat=True)
    assert "Collapse: in the preview of step 200" in warnings(read_folder(folder))[0]
    (folder / "run.json").write_text('{"warnings": ["the shifted condition is invisible"]}')
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 4, "not_finite": ["kl"], "fake": NaN}\n')
    said = " ".join(warnings(read_folder(folder)))
    for words in ("The shifted condition is invisible.", "Skipped, since", "1 of 4 steps (4)", "Not finite in"):
        assert words in said


@pytest.mark.parametrize(
    ("objective", "quiet", "warned"),
    [
        ("", 150, 151),
        ('name = "apex"\nwarmup = 20\n', 20, 21),
        ('name = "mean_flow"\n', 0, 1),
        ('name = "mine"\n', 0, 1),
    ],
)
def test_until_its_objective_has_warmed_up_a_blank_student_is_no_collapse(tmp_path, objective, quiet, warned):
    folder = begun(tmp_path / "run", config=f"[objective]\n{objective}")
    for step in (0, quiet):
        preview(folder, step, flat=True)
        assert warnings(read_folder(folder)) == []
    preview(folder, warned, flat=True)
    assert "Collapse" in warnings(read_folder(folder))[0]


@pytest.mark.parametrize(
    ("pairwise", "data", "word"), [(0.35, 0.36, None), (0.2, 0.36, "Diversity loss"), (0.05, 0.36, "Collapse")]
)
def test_lost_variety_is_told_by_how_much(folder, pairwise, data, word):
    report = {"student": {"1": entry(1.0, 0.1)}, "data": entry(1.0, 0.1)}
    report["student"]["1"]["spread"]["pairwise"] = pairwise
    report["data"]["spread"]["pairwise"] = data
    write_report(folder, report, None, [])
    said = warnings(read_folder(folder))
    assert said == [] if word is None else (said[0].startswith(word) and f"{pairwise / data:.0%}" in said[0])
