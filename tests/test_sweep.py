"""The sweep: table, charts, grid and page of the embedded pipeline and a run of it; what goes on, what is refused."""

import json
import re
import time

import numpy as np
import pytest
from forks import start
from PIL import Image
from rich.console import Console

from apexgen.cli import main
from apexgen.evaluate.geneval.judge import read_results, scores
from apexgen.evaluate.geneval.records import read_records
from apexgen.evaluate.result import by_protocol, load_result
from apexgen.evaluate.subject import read_subject
from apexgen.evaluate.sweep import protocol_of, read_steps, sweep
from apexgen.export.diffusers import LORA_FILE
from apexgen.export.run import export_run
from apexgen.report.grid import cells
from apexgen.size import Size
from judges import new_clip_judge, new_mask2former
from runs import finished_run
from vision import clip_folder

QUIET = Console(quiet=True)


def test_a_sweep_draws_judges_and_shows(tmp_path):
    run = finished_run(tmp_path / "run", "scenes")
    subjects = [read_subject("scenes:3"), read_subject(str(run))]
    protocol = protocol_of(None, 2, 1, None, tmp_path / "cache")
    results = sweep(subjects, [1, 4], protocol, None, tmp_path / "out", QUIET)
    assert [result.evaluations for result in results] == [2, 8, 1, 4]
    assert results[0].model == "scenes:3@1" and results[0].judge.startswith("the exact judge of scenes")
    one, four = results[:2]
    assert set(one.scores) == {"score", "places", "within"} and one.n == 12 and one.seeds == (0, 1)
    assert four.scores["score"] > one.scores["score"]  # the teacher, guided, needs its steps
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())[1]["scores"] == four.scores
    assert load_result(next((tmp_path / "out" / "results").glob("scenes-3-04.json"))) == four
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert page.count("<polyline") == 6 and "http" not in page and not re.search(r"(src|href)=\"(?!data:)", page)
    grid = Image.open(tmp_path / "out" / "grid.png")
    assert grid.height > 8 * 128 > grid.width  # two models of four prompts, two columns
    drawn = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("pictures/*/*/*.png")}
    assert len(drawn) == 2 * 2 * 12
    again = sweep(subjects, [1, 2, 4], protocol, None, tmp_path / "out", QUIET)
    assert again[1].evaluations == 4 and [again[0], again[2]] == [one, four]
    assert all(file.stat().st_mtime_ns == when for file, when in drawn.items())


def test_checkpoints_of_a_run_and_an_exported_lora_are_swept(tmp_path):
    run = finished_run(tmp_path / "run", "scenes")
    lora = export_run(run, "diffusers", tmp_path / "lora").folder / LORA_FILE
    finished_run(run, "scenes", step=9, deviation=0.2)
    words = [f"{run}#7", f"{run}#9", str(run), f"scenes+{lora}"]
    protocol = protocol_of(["a red ring", "two blue circles"], 2, 1, None, tmp_path / "cache")
    results = sweep([read_subject(word) for word in words], [1, 2], protocol, None, tmp_path / "out", QUIET)
    assert [result.model for result in results] == [f"{word}@{steps}" for word in words for steps in (1, 2)]
    early, late, latest, exported = (result.drawn["weights"] for result in results[::2])
    assert len({early, late, exported}) == 3 and late == latest
    within = [result.scores["within"] for result in results]
    assert within[2:4] == within[4:6] and within[:2] != within[2:4] and len(by_protocol(results)) == 1
    assert within[6:] == pytest.approx(within[:2], abs=1e-3)  # the LoRA is of step 7
    with pytest.raises(ValueError, match="--checkpoint 8: there is none"):
        sweep([read_subject(f"{run}#8")], [1], protocol, None, tmp_path / "out", QUIET)


def test_models_of_unlike_sizes_share_a_grid(tmp_path):
    subjects = [read_subject("scenes"), read_subject(str(finished_run(tmp_path / "run", "scenes")))]
    protocol = protocol_of(["a red ring", "two blue circles"], 2, 1, None, tmp_path / "cache")
    results = sweep(subjects, [1], protocol, Size(64, 96), tmp_path / "out", QUIET)
    assert len({result.drawn["size"] for result in results}) == 2
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    shown, own = cells(grid, 1)[0], Image.open(next((tmp_path / "out" / "pictures" / "scenes").rglob("0000-0.png")))
    assert shown.shape == (4, 128, 128, 3) and own.size == (96, 64)
    assert (shown[0, :21] == 255).all() and (shown[2, :21] < 255).any()  # wide ones keep their shape


def test_own_prompts_are_scored_by_a_clip_or_by_variety_alone(tmp_path):
    subjects, prompts = [read_subject("scenes")], ["a red ring", "two blue circles", "a red ring"]
    alone = protocol_of(prompts, 2, 1, None, tmp_path / "cache")
    [result] = sweep(subjects, [1], alone, None, tmp_path / "a", QUIET)
    assert set(result.scores) == {"within"} and result.n == 4
    clip = protocol_of(prompts, 2, 1, clip_folder(tmp_path / "clip"), tmp_path / "cache")
    [scored] = sweep(subjects, [1], clip, None, tmp_path / "a", QUIET)
    assert list(scored.scores) == ["CLIP score", "within"] and scored.judge.startswith("clip clip (")


def test_a_detector_scores_a_sweep_of_any_model_as_geneval_does(tmp_path, monkeypatch):
    records = read_records()[178:180]
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text("".join(json.dumps(record) + "\n" for record in records))
    judges = ["--detector", new_mask2former(tmp_path / "m"), "--clip", new_clip_judge(tmp_path / "c")]
    options = ["--metadata", metadata, *judges, "--steps", "1-2", "--cache", tmp_path / "cache"]

    def run(*more):
        command = ["evaluate", "sweep", "scenes", *options, "--out", tmp_path / "out", *more]
        monkeypatch.setattr("sys.argv", ["apexgen", *map(str, command)])
        main()
        return [load_result(file) for file in sorted((tmp_path / "out" / "results").glob("*.json"))]

    results = run("--geneval", "mask2former")
    assert [list(result.scores) for result in results] == [["GenEval[mask2former]", "within"]] * 2
    assert "mmdet's post-processing" in results[0].judge and results[0].n == 4
    lines = read_results(tmp_path / "out" / "pictures" / "scenes" / "01" / "geneval" / "results.jsonl")
    assert [json.loads(line["metadata"]) for line in lines] == [record for record in records for _ in range(2)]
    assert results[0].scores["GenEval[mask2former]"] == scores(lines)[0]["overall"]
    assert run("--geneval", "mask2former") == results
    for more in ((), ("--geneval", "mask2former", "--per-task", 3), ("--geneval", "yolo")):
        with pytest.raises(SystemExit) as stop:
            run(*more)
        assert stop.value.code == 2


def test_a_killed_sweep_goes_on(tmp_path):
    places = ("--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    process = start(tmp_path / "log", "evaluate", "sweep", "scenes", "--steps", "1-2", "--per-task", "2", *places)
    while not list((tmp_path / "out").rglob("0*.png")) and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("0*.png")}
    assert before, (tmp_path / "log").read_text()
    protocol = protocol_of(None, 2, 2, None, tmp_path / "cache")
    resumed = sweep([read_subject("scenes")], [1, 2], protocol, None, tmp_path / "out", QUIET)
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    fresh = sweep([read_subject("scenes")], [1, 2], protocol, None, tmp_path / "fresh", QUIET)
    assert resumed == fresh


def test_the_page_is_told_of_by_the_rank_that_wrote_it(tmp_path, run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        command = ("sweep", "scenes", "--steps", 1, "--per-task", 1, "--cache", tmp_path / "cache")
        code, *said = run("evaluate", *command, "--out", tmp_path / "out")
        told = "page: " in "".join(said)
        assert code == 0 and told == (tmp_path / "out" / "sweep.html").is_file() == (rank == "1")


@pytest.mark.parametrize(
    ("text", "steps"), [("1-4,8,16", [1, 2, 3, 4, 8, 16]), ("4,2", [2, 4]), ("3", [3]), (" 1 , 2-2", [1, 2])]
)
def test_steps_are_read(text, steps):
    assert read_steps(text) == steps


@pytest.mark.parametrize("text", ["", "0", "4-2", "1-", "a", "1,,2", "-3"])
def test_other_steps_are_refused(text):
    with pytest.raises(ValueError, match="such as --steps 1-4,8,16"):
        read_steps(text)


def test_mistakes_cost_a_line_and_write_nothing(tmp_path, folders):
    protocol = protocol_of(None, 2, 1, None, tmp_path)
    with pytest.raises(ValueError, match="add --prompts FILE"):
        sweep([read_subject(str(folders["flux"]))], [1], protocol, None, tmp_path / "out", QUIET)
    with pytest.raises(ValueError, match="leave @4 out"):
        sweep([read_subject("scenes@4")], [1], protocol, None, tmp_path / "out", QUIET)
    with pytest.raises(ValueError, match="leave stock: out"):
        sweep([read_subject("stock:scenes")], [1], protocol, None, tmp_path / "out", QUIET)
    with pytest.raises(ValueError, match="write --seeds 2"):
        protocol_of(None, 1, 1, None, tmp_path)
    with pytest.raises(ValueError, match="add --prompts FILE"):
        protocol_of(None, 2, 1, tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"--clip .*: no such folder; run: hf download"):
        protocol_of(["a red ring"], 2, 1, tmp_path / "absent", tmp_path)
    assert not (tmp_path / "out").exists()
