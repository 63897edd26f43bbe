"""One row a model: what is of one model is found by its weights, and unlike protocols keep their columns."""

import json

import pytest

from apexgen.cli import main
from apexgen.cli.app import answer
from apexgen.evaluate.by_model import models_table
from apexgen.evaluate.result import Result, save_result
from apexgen.evaluate.timing import timing_table

DRAWN = {"weights": "abc", "drawer": "student@1", "steps": 1, "guidance": 1.0, "size": 64, "precision": "float32"}


def result(benchmark, scores, model="mine student@1", drawn=DRAWN, **changes):
    values = {"benchmark": benchmark, "judge": "tiny", "model": model, "evaluations": 1, "scores": scores, "n": 4}
    return Result.model_validate(values | {"drawn": drawn} | changes)


OURS = [
    result("GenEval[mask2former]", {"colors": 0.2, "overall": 0.81}, spread={"overall": 0.01}),
    result("DPG-Bench", {"DPG": 87.5, "entity": 90.0}),
    result("WISE Verified", {"cultural": 0.4, "overall": 0.5}),
    result("speed", {"images/s": 6.5, "latency": 0.25, "B parameters": 0.5}, model="runs/mine@1"),
]
TEACHER = DRAWN | {"steps": 50, "guidance": 4.0}
OTHERS = [
    result("GenEval[mask2former]", {"overall": 0.9}, "t@50", TEACHER, evaluations=100),
    result("GenEval[mask2former]", {"overall": 0.7}, "theirs", {}, evaluations=None, judge="mmdet"),
]


def test_all_that_is_of_one_model_is_in_its_row():
    grid = models_table([*OURS, *OTHERS])
    genevals = ["GenEval[mask2former] (1)", "DPG-Bench[judge=tiny]", "WISE Verified[judge=tiny]"]
    assert list(grid.names) == [
        "model", "NFE", *genevals, "B parameters", "images/s", "latency, s", "GenEval[mask2former] (2)"
    ]  # fmt: skip
    assert [list(row) for row in grid.rows] == [
        ["mine student@1", "1", "0.81 ± 0.01", "87.5", "0.5", "0.5", "6.5", "0.25", "-"],
        ["t@50", "100", "0.9", "-", "-", "-", "-", "-", "-"],
        ["theirs", "-", "-", "-", "-", "-", "-", "-", "0.7"],
    ]
    assert grid.notes[0] == "GenEval[mask2former]: overall, judged by tiny"
    assert grid.notes[-1] == "GenEval[mask2former]: overall, judged by mmdet"


def test_other_settings_never_share_a_column():
    grid = models_table([OURS[1], result("DPG-Bench", {"DPG": 50.0}, "b", {}, settings={"data": "x"})])
    assert [row[2:] for row in grid.rows] == [["87.5", "-"], ["-", "50"]]
    assert "data = x" in grid.notes[1]


def test_the_command_prints_it_for_a_terminal_a_page_and_a_program(tmp_path, monkeypatch, capsys):
    files = []
    for number, one in enumerate([*OURS, *OTHERS, result("DPG-Bench", {"DPG": 1.0}, "a|b", {})]):
        files.append(str(tmp_path / f"{number}.json"))
        save_result(one, tmp_path / f"{number}.json")

    def run(*options):
        monkeypatch.setattr("sys.argv", ["apexgen", "evaluate", "table", *files, *options])
        main()
        return capsys.readouterr().out

    assert "WISE Verified" in run("--by", "model") and "judged by mmdet" in run("--by", "model")
    page = run("--by", "model", "--markdown").splitlines()
    assert page[0].startswith("| model | NFE | GenEval[mask2former] (1) | DPG-Bench[judge=tiny] |")
    assert page[1].startswith("| --- | ---: |") and page[-1].startswith("GenEval[mask2former]: ")
    assert any(line.startswith("| a\\|b | 1 |") for line in page)
    assert run("--markdown").count("| model | evaluations | n |") == 5
    assert json.loads(run("--by", "model", "--json"))[1]["NFE"] == "100"
    for options in (("--by", "judge"), ("--markdown", "--json")):
        with pytest.raises(SystemExit) as stop:
            run(*options)
        assert stop.value.code == 2


def test_brackets_of_benchmarks_models_and_judges_are_no_markup(tmp_path, monkeypatch, capsys):
    speed = result("speed", {"images/s": 6.5}, "a[x]", judge="gpu [/x]",
                   settings={"batch": 10, "latency_batch": 1, "repeats": 3, "warmup": 1, "rounds": 1, "compiled": False,
                             "beside": "b[/x]", "size": 64, "precision": "float32"})  # fmt: skip
    for number, one in enumerate([OURS[0], result("DPG-Bench", {"DPG": 1.0}, "m[/x]", {}, judge="mmdet [/x]"), speed]):
        save_result(one, tmp_path / f"{number}.json")
    files = [str(tmp_path / f"{number}.json") for number in range(3)]
    for options in ((), ("--by", "model")):
        monkeypatch.setattr("sys.argv", ["apexgen", "evaluate", "table", *files, *options])
        main()
        said = capsys.readouterr().out
        assert "GenEval[mask2former]" in said and "judged by mmdet [/x]" in said and "m[/x]" in said
        assert options or "GenEval[mask2former], judged by tiny" in said
    answer(False, None, timing_table([speed]))
    said = capsys.readouterr().out
    assert "speed on gpu [/x]" in said and "beside b[/x]" in " ".join(said.split()) and "a[x]" in said
