"""The best checkpoint outlives newer ones, is named, and is the one that is drawn with and exported."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from apexgen import checkpoint
from apexgen.cli import main
from apexgen.config import dump_run, load_run
from apexgen.distill import open_backbone, open_student, read_run
from apexgen.drawer import open_model
from apexgen.export.run import export_run
from apexgen.room import checkpoint_bytes, checkpoints_held
from apexgen.train import train
from runs import finished_run
from small import perturb, trainer, trainer_of

SETTINGS = (
    "train.steps=8",
    "train.batch=1",
    "objective.warmup=8",
    "train.save_every=3",
    "train.keep=1",
    "train.evaluate_every=1",
    "train.keep_best=one_step_score",
)
SCORES = (0.1, 0.5, 0.3, 0.5, float("nan"), 0.2, 0.1, 0.4)  # of steps 1 to 8


def run_on(made, folder, scores=SCORES, watch=lambda step: None, metric="one_step_score"):
    train(made, folder, lambda step, logs: watch(step), evaluate=lambda: {metric: scores[made.step - 1]})
    return made


def steps(folder):
    return [int(path.name[5:]) for path in checkpoint.checkpoints(folder / "checkpoints")]


def named(folder):
    return json.loads((folder / "checkpoints" / checkpoint.BEST).read_text())


def test_the_best_is_kept_beside_the_newest_and_named(tmp_path):
    """One as good that comes later is not better, and what is not a number is never best."""
    seen = []
    made = run_on(trainer(tmp_path, *SETTINGS), tmp_path, watch=lambda step: seen.append(steps(tmp_path)))
    assert seen == [[1], [2], [2, 3], [2, 3], [2, 3], [2, 6], [2, 6], [2, 8]]
    assert named(tmp_path) == {"step": 2, "metric": "one_step_score", "prompts": 24, "value": 0.5}
    assert max(map(len, seen)) < checkpoints_held(made.run.train) == 3


def test_the_least_distance_is_best(tmp_path):
    made = trainer(tmp_path, *SETTINGS[:-1], "train.keep_best=one_step_distance")
    run_on(made, tmp_path, metric="one_step_distance")
    assert named(tmp_path)["step"] == 1 and steps(tmp_path) == [1, 8]


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_run_that_resumes_has_the_same_best(tmp_path, stop):
    class Killed(Exception):
        pass

    def kill(step):
        if step == stop:
            raise Killed

    with pytest.raises(Killed):
        run_on(trainer(tmp_path, *SETTINGS), tmp_path, watch=kill)
    again = trainer(tmp_path, *SETTINGS)
    again.restore(checkpoint.load_latest(tmp_path / "checkpoints", pytest.fail))
    run_on(again, tmp_path)
    assert named(tmp_path)["step"] == 2 and steps(tmp_path) == [2, 8]


def test_a_best_by_another_measure_or_one_that_is_gone_is_forgotten(tmp_path):
    run_on(trainer(tmp_path, *SETTINGS), tmp_path)
    state = checkpoint.load_latest(tmp_path / "checkpoints", pytest.fail)
    other = trainer(tmp_path, *SETTINGS, "train.evaluate_prompts=6")
    other.restore(state)
    assert other.note({"one_step_score": 0.01}) and other.best["step"] == 8
    assert not other.note({"one_step_score": 0.01})
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000002")
    assert checkpoint.load_latest(tmp_path / "checkpoints", pytest.fail).best is None


def two_checkpoints(folder: Path) -> Path:
    """A finished run at step 7, and an earlier best one of other weights."""
    finished_run(folder, "scenes", "model.precision=float32")
    run = load_run(folder / "config.toml")
    student = open_student(run, open_backbone(run))
    perturb(student, 0.5)
    newest = checkpoint.load_latest(folder / "checkpoints", pytest.fail)
    best = {"step": 3, "metric": "one_step_score", "prompts": 24, "value": 0.5}
    for state in (
        checkpoint.State(3, student.trained, student.average, {}, best=best),
        checkpoint.State(7, newest.weights, newest.average, {}, best=best),
    ):
        checkpoint.save(folder / "checkpoints", state, dump_run(run), keep=1)
    return folder


def test_the_checkpoint_that_is_named_is_drawn_with_judged_and_exported(tmp_path, monkeypatch):
    folder = two_checkpoints(tmp_path / "run")
    drawn = {
        which: open_model(folder, checkpoint=which).student(1).draw(["two rings"], [0])
        for which in ("latest", "best", "3", "7")
    }
    assert (drawn["best"] == drawn["3"]).all() and (drawn["latest"] == drawn["7"]).all()
    assert abs(drawn["best"] - drawn["latest"]).max() > 0.05
    for which in ("latest", "best"):
        out = tmp_path / which
        monkeypatch.setattr(
            sys, "argv", f"apexgen evaluate scenes {folder} --per-task 1 --out {out} --checkpoint {which}".split()
        )
        main()
        drawer = json.loads(next(out.rglob("manifest.json")).read_text())
        assert drawer == open_model(folder, checkpoint=which).student(1).settings()
    exported = export_run(folder, "merged", which="best").folder
    pictures = open_model(exported, precision="float32").teacher(1).draw(["two rings"], [0])
    assert abs(pictures - drawn["best"]).max() < 1e-3


@pytest.mark.parametrize(
    ("which", "words"),
    [("best", "has none, as train.keep_best"), ("4", "there is none in"), ("newest", "there is none in")],
)
def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(tmp_path, which, words):
    folder = finished_run(tmp_path / "run", "scenes")
    with pytest.raises(ValueError, match=rf"^--checkpoint {which}: .*{words}.*write --checkpoint latest, or one of 7$"):
        read_run(folder, which)
    with pytest.raises(ValueError, match="is a pipeline, which has none"):
        open_model("scenes", checkpoint=which)


def test_a_broken_best_is_not_replaced_in_silence(tmp_path):
    folder = two_checkpoints(tmp_path / "run")
    (folder / "checkpoints" / "step-00000003" / "average.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"--checkpoint best: .* is broken"):
        read_run(folder, "best")


@pytest.mark.parametrize("content", ["", '{"step": 3', "{}", "[]", "3"])
def test_a_broken_name_of_the_best_is_told_by_its_file(tmp_path, content):
    folder = finished_run(tmp_path / "run", "scenes")
    file = folder / "checkpoints" / checkpoint.BEST
    file.write_text(content)
    with pytest.raises(ValueError) as error:
        read_run(folder, "best")
    remedy = "write --checkpoint latest, or one of 7"
    assert str(error.value) == f"--checkpoint best: {file} is broken (it names no step); {remedy}"


@pytest.mark.parametrize(("name", "tune"), [("apex", "lora"), ("apex", "full"), ("progressive", "lora")])
def test_a_checkpoint_is_as_large_as_foretold(tmp_path, name, tune):
    """Before the first step, and after it; with the snapshot that some objectives come to take."""
    made = trainer_of(name, f"model.tune={tune}", "train.steps=1000")
    foretold = checkpoint_bytes(made)
    made.advance()
    if name == "progressive":
        made.student.take_snapshot()
    path = checkpoint.save(tmp_path / "checkpoints", made.state(), "", keep=1)
    written = sum(file.stat().st_size for file in path.iterdir())
    assert foretold == pytest.approx(written, rel=0.05)
    assert checkpoint_bytes(made) == pytest.approx(written, rel=0.05)


def test_the_settings_of_a_best_need_evaluations():
    for setting in ("train.keep_best=one_step_score", "train.evaluate_prompts=3"):
        with pytest.raises(ValueError, match=r"is of evaluations; remove it, or write evaluate_every = 200$"):
            load_run(None, [setting])
    assert load_run(None, ["train.evaluate_every=5"]).train.evaluate_prompts == 24
