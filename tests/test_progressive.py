"""The laws of progressive distillation: what a stage's target is, who sets it, and when the teacher changes."""

from dataclasses import replace

import pytest
import torch

from apexgen import flow
from apexgen.objectives import Batch, Draw, Nets
from apexgen.objectives.path import on_grid, solve
from apexgen.objectives.progressive import Progressive
from apexgen.student import Student
from fields import batch, kept_gradient, nets, terms
from gaussian import Gaussian, empty_condition
from small import backbone, inputs, perturb, trainer_of
from test_train import assert_resumes, run_to_end


@pytest.mark.parametrize("step, steps", [(0, 8), (9, 8), (10, 4), (20, 2), (30, 1), (1000, 1)])
def test_one_step_of_the_student_must_end_where_two_of_its_teacher_end(step, steps):
    """On a Gaussian's velocity, with its two half steps written out; the stage says on which grid."""
    gaussian, objective = Gaussian(), Progressive(halvings=3, stage_steps=10)
    asked = []

    def student(x, t, r, c):
        asked.append((x, t, r))
        return torch.zeros_like(x).requires_grad_()

    networks = Nets(student, gaussian.velocity, student, snapshot=gaussian.velocity)
    one = Batch(empty_condition(64), empty_condition(1), gaussian.sample((64, 3)))
    drawn = objective.draw((64, 3), torch.Generator().manual_seed(0))
    drawn = Draw(*(tuple(value.double() for value in kind) for kind in (drawn.noises, drawn.times)))
    (loss,) = objective.terms(networks, one, drawn, step)
    ((x_t, t, r),) = asked
    assert set((t * steps).flatten().tolist()) == set(range(1, steps + 1))
    torch.testing.assert_close(t - r, torch.full_like(t, 1 / steps))
    torch.testing.assert_close(x_t, flow.interpolate(one.x, drawn.noises[0], t))
    first = gaussian.velocity(x_t, t)
    second = gaussian.velocity(x_t - first * (t - r) / 2, (t + r) / 2)
    torch.testing.assert_close(loss.value, ((first + second) / 2).square().mean())


def test_on_a_straight_field_the_teacher_is_its_own_student():
    """x_t = (1 - t) m + t z: the steps are exact, whatever their size, and every stage leaves the student at rest."""
    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    field = lambda x, t, r, c: (x - 1.5) / t + shift  # noqa: E731
    networks = Nets(field, field, field, snapshot=field)
    one = Batch(empty_condition(16), empty_condition(1), torch.full((16, 3), 1.5, dtype=torch.float64))
    objective = Progressive(halvings=2, stage_steps=1)
    drawn = objective.draw((16, 3), torch.Generator().manual_seed(0))
    drawn = Draw(*(tuple(value.double() for value in kind) for kind in (drawn.noises, drawn.times)))
    for step in range(4):
        (loss,) = objective.terms(networks, one, drawn, step)
        (slope,) = torch.autograd.grad(loss.value, shift)
        assert slope.abs().max() < 1e-12


def test_a_snapshot_is_taken_where_a_stage_begins_and_nowhere_else():
    objective = Progressive(halvings=3, stage_steps=5)
    assert [step for step in range(100) if objective.takes_snapshot(step)] == [5, 10, 15]
    assert not any(Progressive(halvings=0).takes_snapshot(step) for step in range(2000))


def test_the_first_stage_asks_the_teacher_alone_and_the_later_ones_the_snapshot_alone():
    def refuse(x, t, r, c):
        raise AssertionError("not this one")

    networks, objective = nets(), Progressive(stage_steps=5)
    list(terms(objective, replace(networks, snapshot=refuse), batch(), step=4))
    list(terms(objective, replace(networks, teacher=refuse), batch(), step=5))
    (guided,) = terms(replace(objective, guidance=3.0), networks, batch(), step=5)
    assert guided.value.isfinite(), "guidance is inside the snapshot and is not applied twice"


def test_no_gradient_reaches_the_snapshot():
    networks = nets()
    (loss,) = terms(Progressive(stage_steps=1), networks, batch(), step=2)
    loss.value.backward()
    assert kept_gradient(networks.student).abs().sum() > 0
    assert kept_gradient(networks.snapshot, networks.teacher).abs().sum() == 0


def test_solving_in_one_step_is_a_step_and_in_many_the_flow():
    gaussian, x = Gaussian(), torch.randn(64, 3).double()
    t, r, c = torch.ones(64, 1).double(), torch.full((64, 1), 0.25).double(), empty_condition(64)
    torch.testing.assert_close(solve(gaussian.velocity, x, t, r, c, 1), flow.step(x, gaussian.velocity(x, t), t, r))
    errors = [(solve(gaussian.velocity, x, t, r, c, n) - gaussian.flow_map(x, t, r)).abs().max() for n in (50, 100)]
    assert errors[1] < 0.6 * errors[0] < 0.1


def test_times_on_the_grid_are_left_where_they_are():
    t = torch.tensor([1e-6, 0.25, 0.2501, 0.5, 0.9, 1.0])
    assert torch.equal(on_grid(t, 4), torch.tensor([0.25, 0.25, 0.5, 0.5, 1.0, 1.0]))
    assert torch.equal(on_grid(t, 1), torch.ones(6))


# The students' snapshots


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_students_snapshot_is_what_it_was_and_stays_so(mode):
    student = Student(backbone(), mode, rank=4)
    assert student.nets().snapshot is None
    perturb(student)
    x, t, c = inputs(student.backbone)
    with torch.no_grad():
        then = student.backbone(x, t, t, c)
        student.take_snapshot()
        perturb(student)
        torch.testing.assert_close(student.nets().snapshot(x, t, t, c), then)
        assert not torch.allclose(student.backbone(x, t, t, c), then, atol=1e-3)


def test_a_run_that_stops_within_a_stage_goes_on_bitwise(tmp_path):
    """Stopped where a stage begins, and within it: its teacher is saved with it."""
    make = lambda: trainer_of(  # noqa: E731
        "progressive", "objective.stage_steps=2", "objective.halvings=2", "train.steps=5"
    )
    whole = run_to_end(make(), tmp_path / "whole")
    assert whole.kept
    assert_resumes(make, tmp_path, whole, 2, 3)
