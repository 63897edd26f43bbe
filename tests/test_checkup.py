"""The student looked over while it trains: known answers, and no touch on the training."""

import json

import pytest
import torch

from apexgen import checkup
from apexgen.checkup import Checkup
from apexgen.config import dump_run
from apexgen.generate import to_tensor
from apexgen.report.page import write_page
from apexgen.scenes.draw import draw_pictures
from apexgen.scenes.pipeline import FOLDER
from apexgen.train import train
from small import EMBEDDED, perturb, trainer

EVERY = ("train.evaluate_every=2", "train.evaluate_prompts=8", "train.batch=16")  # all that is looked at, at once


def returning(made, target):
    """The trainer with an average that makes `target` of the noises that follow, whatever they are."""
    rows = iter(target.split(made.run.train.batch))
    made.student.ema = lambda x, t, r, c: x - next(rows)
    return made


def test_a_student_that_is_its_teacher_is_as_varied_and_no_distance_away(tmp_path, monkeypatch):
    monkeypatch.setattr(checkup, "TEACHER_STEPS", 1)
    made = trainer(tmp_path, *EVERY, "objective.guidance=1.0", "objective.guidance_until=1.0")
    said = Checkup(made).take()
    assert said["one_step_distance"] == pytest.approx(0, abs=1e-5)
    assert said["one_step_diversity"] == pytest.approx(1, abs=1e-5)
    perturb(made.student)
    assert Checkup(made).take()["one_step_distance"] > 0.01


def test_the_teacher_is_guided_where_the_objective_says(tmp_path, monkeypatch):
    """One step stands at t = 1, where this objective's teacher is not guided: the untrained student is it."""
    monkeypatch.setattr(checkup, "TEACHER_STEPS", 1)
    made = trainer(tmp_path, *EVERY, "objective.guidance=3.0", "objective.guidance_until=0.5")
    assert Checkup(made).take()["one_step_distance"] == pytest.approx(0, abs=1e-5)


def test_statistics_are_those_of_the_samples(tmp_path):
    made = trainer(tmp_path, *EVERY)
    looked = Checkup(made)
    samples = torch.randn(16, *made.shape) * 3 + 1
    said = Checkup.take(returning(made, samples) and looked)
    assert said["one_step_mean"] == pytest.approx(samples.mean().item(), abs=1e-4)
    assert said["one_step_deviation"] == pytest.approx(samples.std().item(), rel=1e-4)
    expected = (samples - looked.teacher).square().mean() ** 0.5
    assert said["one_step_distance"] == pytest.approx(expected.item(), rel=1e-4)
    pairs = [[torch.dist(*many[i : i + 2]).item() for i in range(0, 16, 2)] for many in (samples, looked.teacher)]
    assert said["one_step_diversity"] == pytest.approx(sum(pairs[0]) / sum(pairs[1]), rel=1e-4)


def test_a_student_that_does_not_read_its_noise_has_no_diversity(tmp_path):
    made = trainer(tmp_path, *EVERY)
    looked = Checkup(made)
    returning(made, torch.randn(8, *made.shape).repeat_interleave(2, dim=0))
    assert looked.take()["one_step_diversity"] == pytest.approx(0, abs=1e-6)


def test_of_a_teacher_that_is_collapsed_itself_there_is_no_share(tmp_path):
    looked = Checkup(trainer(tmp_path, *EVERY))
    looked.teacher = looked.teacher[::2].repeat_interleave(2, dim=0)
    said = looked.take()
    assert "one_step_diversity" not in said and said["one_step_distance"] > 0


def test_true_pictures_score_well_and_noise_does_not(tmp_path):
    made = trainer(tmp_path, *EVERY, *EMBEDDED)
    looked = Checkup(made)
    assert len(looked.captions) == 16 and len({caption.text for caption in looked.captions}) == 8
    pictures = draw_pictures(looked.captions, seed=3)
    returning(made, made.student.backbone.encode_image(to_tensor(pictures)))
    assert looked.take()["one_step_score"] > 0.9
    returning(made, torch.randn(16, *made.shape))
    assert looked.take()["one_step_score"] < 0.1


def test_another_model_has_no_score_and_the_prompts_of_its_data(tmp_path):
    made = trainer(tmp_path, *EVERY, f"model.path={FOLDER}")
    looked = Checkup(made)
    assert "one_step_score" not in looked.take() and looked.captions == []
    assert len(looked.condition) == 16


def test_training_is_the_same_with_and_without(tmp_path):
    """Bitwise, and the numbers too: a run that resumes says what an unbroken one does."""
    plain, watched = trainer(tmp_path), trainer(tmp_path, "train.evaluate_every=2", "train.evaluate_prompts=2")
    train(plain, tmp_path / "plain", lambda step, logs: torch.randn(3))
    train(watched, tmp_path / "watched", lambda step, logs: None, evaluate=Checkup(watched).take)
    for part in ("trained", "average"):
        for name, tensor in getattr(plain.student, part).items():
            assert torch.equal(tensor, getattr(watched.student, part)[name]), name
    lines = [json.loads(line) for line in (tmp_path / "watched" / "metrics.jsonl").read_text().splitlines()]
    assert ["one_step_distance" in line for line in lines] == [False, True, False, True]
    again = Checkup(watched).take()
    assert {name: lines[-1][name] for name in again} == again
    (tmp_path / "watched" / "config.toml").write_text(dump_run(watched.run))
    page = write_page([tmp_path / "watched"], None).read_text()
    for name, last in again.items():  # each is a curve of the report
        assert f'aria-label="{name}: watched {lines[1][name]:.3g} at first, {last:.3g} at last"' in page
