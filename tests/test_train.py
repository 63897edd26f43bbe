"""Training: deterministic, resumed bitwise, stopped by what is not finite."""

import json

import pytest
import torch

from apexgen import checkpoint
from apexgen.train import rate, train
from small import perturb, trainer


def run_to_end(made, folder):
    train(made, folder, lambda step, logs: None)
    return made.state()


def assert_same(first, second):
    assert first.step == second.step
    for part in ("weights", "average"):
        for name, tensor in getattr(first, part).items():
            assert torch.equal(tensor, getattr(second, part)[name]), name
    for index, moments in first.optimizer["state"].items():
        for key, value in moments.items():
            assert torch.equal(value, second.optimizer["state"][index][key])


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_resume_is_bitwise(tmp_path, tune):
    whole = run_to_end(trainer(tmp_path, f"model.tune={tune}"), tmp_path / "whole")
    stopped = trainer(tmp_path, f"model.tune={tune}")
    while stopped.step < 2:
        stopped.advance()
    checkpoint.save(tmp_path / "parts" / "checkpoints", stopped.state(), "", keep=1)
    resumed = trainer(tmp_path, f"model.tune={tune}")
    resumed.restore(checkpoint.load_latest(tmp_path / "parts" / "checkpoints", pytest.fail))
    assert_same(run_to_end(resumed, tmp_path / "parts"), whole)


def test_metrics_hold_every_step_once_after_a_resume(tmp_path):
    made = trainer(tmp_path)
    run_to_end(made, tmp_path)
    again = trainer(tmp_path)
    again.restore(checkpoint.load(tmp_path / "checkpoints" / "step-00000002"))
    run_to_end(again, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"fake", "anchor", "kl", "gap", "gradient_norm", "learning_rate"} <= lines[-1].keys()
    assert "kl" not in lines[0]  # the fake field is warmed up first


def test_a_line_cut_short_by_a_kill_is_taken_again(tmp_path):
    made = trainer(tmp_path)
    run_to_end(made, tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole[:-9])
    again = trainer(tmp_path)
    again.restore(checkpoint.load(tmp_path / "checkpoints" / "step-00000002"))
    run_to_end(again, tmp_path)
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [1, 2, 3, 4]
    assert again.seconds_before == json.loads(whole.splitlines()[1])["seconds"]


def test_what_is_not_finite_stops_the_run_and_changes_nothing(tmp_path):
    made = trainer(tmp_path)
    perturb(made.student)
    name = next(iter(made.student.weights))
    with torch.no_grad():
        made.student.weights[name][0, 0] = float("nan")
    before = {key: value.detach().clone() for key, value in made.student.weights.items()}
    with pytest.raises(FloatingPointError, match=r"step 0: .*not finite \(seed 0\)"):
        made.advance()
    for key, value in made.student.weights.items():
        assert torch.equal(value.nan_to_num(), before[key].nan_to_num())


def test_a_checkpoint_of_another_student_is_refused(tmp_path):
    made = trainer(tmp_path)
    with pytest.raises(ValueError, match=r"model\.tune"):
        trainer(tmp_path, "model.tune=full").restore(made.state())


def test_the_rate_rises_then_falls_to_zero():
    factors = [rate(step, steps=100, warmup=10) for step in range(101)]
    assert max(factors) <= 1 and factors[100] == 0
    assert factors[:11] == sorted(factors[:11]) and factors[10:] == sorted(factors[10:], reverse=True)


def test_a_few_steps_fit_the_fake_field(tmp_path):
    """On one fixed draw the fake term must fall, and the anchor keep the real field where it was."""
    whole = ("objective.warmup=40", "objective.anchor_share=1.0")
    made = trainer(tmp_path, "train.steps=40", "train.warmup=0", "train.batch=8", *whole)
    batch = made.corpus.batch(0, 8, seed=5)
    draw = made.objective.draw((8, *made.shape), torch.Generator().manual_seed(5))

    def measure():
        return {loss.name: loss.value.item() for loss in made.objective.terms(made.student.nets(), batch, draw, 0)}

    before = measure()
    for _ in range(15):
        made.advance()
    after = measure()
    assert after["fake"] < 0.9 * before["fake"]
    assert after["anchor"] < 0.5 * before["fake"]
