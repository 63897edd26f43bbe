"""Training: deterministic, resumed bitwise, stopped by what is not finite."""

import json
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from rich.console import Console

from apexgen import checkpoint
from apexgen.config import load_run
from apexgen.distill import distill
from apexgen.files import alone
from apexgen.interrupt import Stopped
from apexgen.optimizer import rate
from apexgen.refuse import check_run
from apexgen.train import MOST_SKIPPED, _keep_until, train
from small import perturb, short_run, trainer, trainer_of


def run_to_end(made, folder):
    train(made, folder, lambda step, logs: None)
    return made.state()


def assert_same(first, second):
    assert first.step == second.step
    for part in ("weights", "average", "kept"):
        assert getattr(first, part).keys() == getattr(second, part).keys()
        for name, tensor in getattr(first, part).items():
            assert torch.equal(tensor, getattr(second, part)[name]), name
    for index, moments in first.optimizer["state"].items():
        for key, value in moments.items():
            assert torch.equal(value, second.optimizer["state"][index][key])


def assert_resumes(make, folder, whole, *stops):
    """Trainers that `make` gives, stopped after so many steps and gone on with, all end in the state `whole`."""
    for stop in stops:
        stopped, resumed, part = make(), make(), folder / f"{stop}"
        while stopped.step < stop:
            stopped.advance()
        checkpoint.save(part / "checkpoints", stopped.state(), "", keep=1)
        resumed.restore(checkpoint.load_latest(part / "checkpoints", pytest.fail))
        assert_same(run_to_end(resumed, part), whole)


def assert_one_step(cut, whole, nearness):
    """A step taken in batches and in one have the same losses and, to within this part of its norm, gradient."""
    logs, gradients = [], []
    for made in (cut, whole):
        perturb(made.student)
        logs.append(made._descend())
        gradients.append(torch.cat([weight.grad.flatten() for weight in made.student.trained.values()]))
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    assert (gradients[0] - gradients[1]).abs().max() < nearness * gradients[1].norm()


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_resume_is_bitwise(tmp_path, tune):
    make = lambda: trainer(tmp_path, f"model.tune={tune}")  # noqa: E731
    assert_resumes(make, tmp_path, run_to_end(make(), tmp_path / "whole"), 2)


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
    assert all(line["steps_per_second"] > 0 and line["peak_memory_bytes"] > 1e8 for line in lines)


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


def test_lines_that_a_power_cut_left_as_zeros_do_not_stop_a_run(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b'{"step": 1, "seconds": 2.0}\n' + bytes(40) + b'\n{"step": 3, "seconds": 4.0}\n{"step')
    assert _keep_until(metrics, 3) == 4.0
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [1, 3]


def test_what_is_not_finite_stops_the_run_and_changes_nothing(tmp_path):
    made = trainer(tmp_path)
    perturb(made.student)
    name = next(iter(made.student.weights))
    with torch.no_grad():
        made.student.weights[name][0, 0] = float("nan")
    before = {key: value.detach().clone() for key, value in made.student.weights.items()}
    with pytest.raises(
        FloatingPointError, match=r"step 0: .*not finite \(seed 0, records \['scene \d+', 'scene \d+'\]\)"
    ) as stopped:
        made.advance()
    assert str(stopped.value).endswith('or write train.on_divergence = "skip" and go on in this one')
    for key, value in made.student.weights.items():
        assert torch.equal(value.nan_to_num(), before[key].nan_to_num())


def poisoned(made, records):
    """The trainer with a corpus in which these records' prompts are not finite."""
    texts = made.corpus.conditions
    for row in made.corpus.rows[records, 0].tolist():
        texts.store[bytes(texts.keys[row].numpy())]["embeds"].fill_(float("nan"))
    return made


def everything(made):
    return deepcopy((made.student.trained, made.student.average, made.optimizer.state_dict()["state"]))


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return all(map(equal, one, other))


def test_a_record_that_is_not_finite_is_skipped_named_and_counted(tmp_path):
    made = trainer(tmp_path, "train.on_divergence=skip", "train.steps=6", "train.save_every=1")
    step_of = {record: step for step in range(6) for record in made.corpus.records(step, 2, 0).tolist()}
    bad = next(record for record, step in step_of.items() if step == 2)
    poisoned(made, [bad])
    states = [everything(made)]
    train(made, tmp_path, lambda step, logs: states.append(everything(made)))
    assert [equal(one, other) for one, other in pairwise(states)] == [step == 2 for step in range(6)]
    assert all(tensor.isfinite().all() for tensors in states[-1][:2] for tensor in tensors.values())
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 1, 1]
    assert f"scene {bad}" in lines[2]["records"] and "gradient_norm" in lines[2]["not_finite"]
    saved = checkpoint.load_latest(tmp_path / "checkpoints", pytest.fail)
    assert (saved.skipped, saved.skipped_in_a_row) == (1, 0)


def test_too_many_skipped_in_a_row_stop_the_run_also_over_a_resume(tmp_path):
    made = poisoned(trainer(tmp_path, "train.on_divergence=skip", "train.steps=9"), list(range(12)))
    before = everything(made)
    for _ in range(2):
        made.advance()
    again = poisoned(trainer(tmp_path, "train.on_divergence=skip", "train.steps=9"), list(range(12)))
    again.restore(made.state())
    for _ in range(MOST_SKIPPED - 3):
        again.advance()
    with pytest.raises(FloatingPointError, match=rf"step {MOST_SKIPPED - 1}: .*records .*steps before it, skipped"):
        again.advance()
    assert equal(everything(again), before)


def test_a_checkpoint_from_before_steps_were_skipped_is_read(tmp_path):
    made = trainer(tmp_path)
    path = checkpoint.save(tmp_path, made.state(), "", keep=1)
    old = torch.load(path / "optimizer.pt", weights_only=True)
    torch.save({name: old[name] for name in ("optimizer", "step")}, path / "optimizer.pt")
    (path / checkpoint.MANIFEST).unlink()
    checkpoint._write_manifest(path)
    assert checkpoint.load(path).skipped == 0


def test_a_checkpoint_of_another_student_is_refused(tmp_path):
    made = trainer(tmp_path)
    with pytest.raises(ValueError, match=r"model\.tune"):
        trainer(tmp_path, "model.tune=full").restore(made.state())


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_rises_then_falls_to_zero_or_stays(schedule):
    factors = [rate(step, 100, 10, schedule) for step in range(101)]
    assert factors[:10] == [(step + 1) / 11 for step in range(10)] and factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == (schedule == "constant")
    assert factors[55] == pytest.approx(1.0 if schedule == "constant" else 0.5)


def test_a_cosine_is_flat_at_both_ends():
    assert rate(1, 100, 0, "cosine") > 0.999 and rate(99, 100, 0, "cosine") < 0.001


@pytest.mark.parametrize(
    ("name", "objective"), [("flow_matching", ()), ("mean_flow", ()), ("dmd", ("objective.warmup=0",))]
)
def test_batches_of_one_step_are_one_batch(name, objective):
    """N batches of B are one of N B: gradient and losses alike."""
    settings = ("model.precision=float32", "model.rank=2", *objective)
    cut = trainer_of(name, *settings, "train.batch=2", "train.accumulate=3")
    whole = trainer_of(name, *settings, "train.batch=6")
    assert_one_step(cut, whole, 3e-6)  # in float32; 1.6e-6 is seen


def test_batches_of_one_whose_terms_see_a_share_are_one_batch():
    """Half of the batches have no anchor, three of four no pairs, and all have the same terms to log."""
    settings = ("model.precision=float32", "model.rank=2", "objective.warmup=0", "objective.anchor_share=0.5")
    settings += ("objective.pair_steps=2", "objective.pair_share=0.25")
    cut = trainer_of("apex", *settings, "train.batch=1", "train.accumulate=4")
    whole = trainer_of("apex", *settings, "train.batch=4")
    assert_one_step(cut, whole, 1e-6)


def test_an_epoch_sees_every_record_once_however_steps_are_cut():
    made = trainer_of("flow_matching", "train.batch=2", "train.accumulate=3")
    seen = [made.corpus.records(step, made.samples, 0).tolist() for step in range(4)]
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == list(range(12))
    assert seen[:2] != seen[2:]  # each epoch in another order


def test_a_few_steps_fit_the_fake_field(tmp_path):
    """On one fixed draw the fake term must fall, and the anchor keep the real field where it was."""
    warming = 'objective={name="apex", warmup=40, guidance=3.0}'
    made = trainer(tmp_path, "train.steps=40", "train.warmup=0", "train.learning_rate=0.01", warming)
    batch = made.corpus.batch(0, 2, seed=5)
    draw = made.objective.draw((2, *made.shape), torch.Generator().manual_seed(5))

    def measure():
        return {loss.name: loss.value.item() for loss in made.objective.terms(made.student.nets(), batch, draw, 0)}

    before = measure()
    for _ in range(15):
        made.advance()
    after = measure()
    assert after["fake"] < 0.9 * before["fake"]
    assert after["anchor"] < 0.5 * before["fake"]


def test_a_sample_drawn_again_for_its_gradient_is_the_same_training_bitwise(tmp_path):
    held, redrawn = (
        run_to_end(trainer(tmp_path, f"objective.redraw={redraw}"), tmp_path / redraw) for redraw in ("false", "true")
    )
    assert_same(held, redrawn)


def test_a_run_stopped_before_its_first_step_does_not_say_that_it_is_saved(tmp_path):
    with pytest.raises(Stopped, match=r"stopped after step 0 of .*, nothing to save; the same command begins"):
        train(trainer(tmp_path), tmp_path / "run", lambda step, logs: None, lambda: True)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_two_runs_are_not_at_work_in_one_folder(tmp_path):
    with alone(tmp_path / "run"), pytest.raises(ValueError, match=r"another process is at work in .*run; wait for"):
        distill(short_run(tmp_path / "run"), Console(quiet=True))
    assert not (tmp_path / "run" / "config.toml").exists()
    assert distill(short_run(tmp_path / "run", "train.preview_every=1000"), Console(quiet=True))[0].step == 4


def test_another_prompt_of_a_batch_of_one_is_refused(tmp_path):
    told = [f"folder={tmp_path}", "objective.fake_told=other"]
    check_run(load_run(None, [*told, "train.batch=2"]))
    with pytest.raises(ValueError, match=r'fake_told = "other" is another prompt of the batch; write train\.batch = 2'):
        check_run(load_run(None, [*told, "train.batch=1", "train.accumulate=4"]))


@pytest.mark.parametrize("setting", ["objective.warmup=0", 'model.tune="full"'])
def test_checkpointing_takes_the_same_step(tmp_path, setting):
    steps = []
    for checkpointing in ("false", "true"):
        made = trainer(tmp_path, setting, f"model.checkpointing={checkpointing}")
        assert made.student.backbone.network.is_gradient_checkpointing == (checkpointing == "true")
        logs = made.advance()
        steps.append(torch.tensor([logs[name] for name in sorted(logs)]))
    torch.testing.assert_close(steps[1], steps[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("name", "why"), [("dmd", "a second network"), ("mean_flow", "forward mode")])
def test_checkpointing_does_not_go_with_every_objective(tmp_path, name, why):
    with pytest.raises(ValueError, match=rf"model\.checkpointing does not go with {why}; write objective\."):
        trainer(tmp_path, f'objective={{name="{name}"}}', "model.checkpointing=true")
