"""GenEval from the command line: results of others, a model drawn and judged, what is missing; scenes too."""

import json

import pytest

from apexgen.cli import main
from apexgen.evaluate.geneval.judge import official_summary, read_results
from apexgen.evaluate.geneval.records import read_records
from apexgen.evaluate.result import load_result
from judges import new_clip_judge, new_mask2former

SOME = read_records()[178:184]


def line(tag, correct, prompt):
    record = {"tag": tag, "include": [{"class": "dog", "count": 1}], "prompt": prompt}
    details = json.dumps({"dog": [[1.0, 2.0, 3.0, 4.0, 0.9]]})
    return {"filename": "a.png", "tag": tag, "prompt": prompt, "correct": correct, "reason": "",
            "metadata": json.dumps(record), "details": details}  # fmt: skip


LINES = [line("colors", True, "a"), line("colors", False, "a"), line("colors", False, "b"), line("counting", True, "c")]


SUMMARY = """Summary
=======
Total images: 4
Total prompts: 3
% correct images: 50.00%
% correct prompts: 66.67%

Task breakdown
==============
colors           = 33.33% (1 / 3)
counting         = 100.00% (1 / 1)

Overall score (avg. over tasks): 0.66667"""


def test_official_results_come_in_with_the_official_summary(tmp_path, monkeypatch, capsys):
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(one).replace("/", r"\/") + "\n" for one in LINES))  # as pandas writes it
    assert read_results(file) == LINES and official_summary(LINES) == SUMMARY
    arguments = ["geneval-results", str(file), "--judge", "mmdet", "--model", "me", "--out", str(tmp_path / "r.json")]
    monkeypatch.setattr("sys.argv", ["apexgen", "evaluate", *arguments])
    main()
    assert SUMMARY in capsys.readouterr().out
    result = load_result(tmp_path / "r.json")
    assert result.judge == "mmdet" and result.scores["overall"] == pytest.approx(2 / 3) and result.n == 4
    for broken in ("{", json.dumps(LINES[0] | {"correct": "yes"}), json.dumps(LINES[0] | {"metadata": "{}"})):
        file.write_text(broken)
        with pytest.raises(ValueError, match=r"results\.jsonl, line 1"):
            read_results(file)


def test_the_command_goes_the_whole_way(tmp_path, monkeypatch, capsys):
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text("".join(json.dumps(record) + "\n" for record in SOME[:2]))
    judges = ["--detector", new_mask2former(tmp_path / "m"), "--clip", new_clip_judge(tmp_path / "c")]
    command = ["evaluate", "geneval", "scenes", "--metadata", metadata, "--samples", 2, "--out", tmp_path / "out"]

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["apexgen", *map(str, arguments)])
        main()
        out = capsys.readouterr().out
        return out[max(out.find("Summary"), 0) :]  # without the progress bars

    said = run(*command, *judges)
    assert "Total images: 4" in said and "Overall score" in said
    file = tmp_path / "out" / "mask2former" / "result.json"
    result = load_result(file)
    assert result.model == "scenes teacher@1" and result.evaluations == 1 and result.seeds == (42, 43)
    assert "mmdet's post-processing" in result.judge and result.settings["threshold"] == 0.3
    assert 0 < result.scores["within"] < 1 and f"are apart by: {result.scores['within']:.4f}" in said
    assert len(result.settings["clip"]) == 16 and result.drawn["weights"] != result.settings["detector"]
    marks = {png: png.stat().st_mtime_ns for png in tmp_path.rglob("*.png")}
    assert run(*command, *judges) == said and {png: png.stat().st_mtime_ns for png in marks} == marks
    there = run("evaluate", "geneval", "--pictures", tmp_path / "out" / "pictures", "--out", tmp_path / "b", *judges)
    assert (
        there[there.index("Summary") : there.index("judged by")]
        == said[said.index("Summary") : said.index("judged by")]
    )
    command[command.index("--samples") + 1] = 1
    assert "Total images: 2" in run(*command, *judges) and load_result(file).seeds == (42,)
    command[command.index("--samples") + 1] = 2
    monkeypatch.chdir(tmp_path)
    assert run(*command, "--detector", "./m", "--clip", "c") == said  # the same judges, spelled otherwise
    table = run("evaluate", "table", file, tmp_path / "b" / "mask2former" / "result.json")
    assert table.count("judged by") == 1 and "scenes teacher@1" in table
    as_json = json.loads(run("evaluate", "table", "--json", file))
    assert as_json[0][0]["scores"] == result.scores


def test_scenes_are_scored_by_their_exact_judge(tmp_path, monkeypatch):
    arguments = ["scenes", "scenes", "--per-task", "2", "--steps", "12", "--guidance", "3", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["apexgen", "evaluate", *arguments])
    main()
    result = load_result(tmp_path / "result.json")
    assert result.n == 12 and result.evaluations == 24 and result.benchmark == "scenes"
    assert result.scores["overall"] > 0.5 and result.scores.keys() == {
        "single_object", "two_object", "counting", "colors", "position", "color_attr", "overall",
        "spread x", "spread y", "spread size", "spread pairwise", "spread color",
    }  # fmt: skip
    assert 0.02 < result.scores["spread x"] < 0.3 and "spread x" not in result.spread


def test_gaps_are_named_with_what_to_do(tmp_path, monkeypatch, capsys):
    def fails(*arguments):
        monkeypatch.setattr("sys.argv", ["apexgen", "evaluate", "geneval", *map(str, arguments), "--out", "x"])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr().err
        assert stop.value.code == 2 and said.count("\n") == 1
        return said

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    said = fails("scenes")
    assert "run: hf download facebook/mask2former-swin-small-coco-instance" in said and "config.json" in said
    assert "run: hf download openai/clip-vit-large-patch14" in said and "tokenizer.json, *.safetensors" in said
    assert "--kind yolo: write one of" in fails("scenes", "--kind", "yolo")
    assert "give --pictures in place of FOLDER" in fails()
    detector = new_mask2former(tmp_path / "m")
    capsys.readouterr()
    assert "hf download openai/clip-vit-large-patch14" in fails("scenes", "--detector", detector)
    assert "no such folder" in fails("scenes", "--detector", "./nowhere")
    assert "--steps has no effect on --pictures" in fails("--pictures", tmp_path, "--steps", 4)
    assert {path.name for path in tmp_path.iterdir()} == {"m"}
