"""The laws of DDO: what it is worth where nothing is to be learnt, where it rests, and which way it moves."""

import math
from dataclasses import replace

import pytest
import torch

from apexgen import flow
from apexgen.objectives import Batch, Nets
from apexgen.objectives.ddo import Ddo
from apexgen.objectives.flow_matching import FlowMatching
from fields import batch, draw, gradient, nets, terms
from gaussian import Gaussian, empty_condition


def same_networks():
    networks = nets()
    return replace(networks, teacher=networks.student, snapshot=networks.student)


def test_a_student_that_is_its_reference_cannot_tell_and_pays_two_log_two():
    real, reference = terms(Ddo(beta=3.0), same_networks(), batch())
    torch.testing.assert_close(real.value + reference.value, torch.tensor(2 * math.log(2)).double())
    assert real.logs["real_ratio"] == reference.logs["reference_ratio"] == 0


@pytest.mark.parametrize("beta", [0.1, 1.0, 20.0])
def test_from_there_it_is_flow_matching_on_pictures_less_flow_matching_on_the_references_samples(beta):
    """The gradient of -log sigma(beta r) at r = 0 is -beta / 2 that of r, whose student's part is minus its error."""
    networks, one, objective = same_networks(), batch(), Ddo(beta=beta, alpha=0.5)
    (z, w), (t,) = draw(objective).noises, draw(objective).times
    x_ref = w
    for k in range(8):
        now = torch.full_like(t, 1 - k / 8)
        x_ref = x_ref - networks.teacher(x_ref, now, now, one.c) / 8

    def error(x):
        return (networks.student(flow.interpolate(x, z, t), t, t, one.c) - flow.velocity(x, z)).square().mean()

    real, reference = terms(objective, networks, one)
    expected = gradient(beta / 2 * (error(one.x) - 0.5 * error(x_ref.detach())), networks.student)
    torch.testing.assert_close(gradient(real.value + reference.value, networks.student), expected)


class Shifted(torch.nn.Module):
    """The velocity of a Gaussian whose mean can be moved."""

    def __init__(self, m):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(m, dtype=torch.float64))

    def forward(self, x, t, r, c):
        return Gaussian(m=self.mean, s=0.4).velocity(x, t)


@pytest.mark.parametrize("data, expected", [(1.5, 0.0), (2.0, -1.0), (1.0, 1.0)])
def test_it_rests_where_the_reference_is_the_data_and_else_moves_toward_the_data(data, expected):
    """The sign of the slope in the student's mean, at the reference: descent goes the other way."""
    n = 40_000
    student, reference = Shifted(1.5), Gaussian(m=1.5, s=0.4)
    one = Batch(empty_condition(n), empty_condition(1), Gaussian(m=data, s=0.4).sample((n, 1)))
    objective = Ddo(solver_steps=32)
    drawn = objective.draw((n, 1), torch.Generator().manual_seed(0))
    drawn = type(drawn)(*(tuple(value.double() for value in kind) for kind in (drawn.noises, drawn.times)))
    losses = list(objective.terms(Nets(student, reference.velocity, student), one, drawn, 0))
    (slope,) = torch.autograd.grad(sum(loss.value for loss in losses), student.mean)
    if expected == 0:
        assert slope.abs() < 0.01
    else:
        assert slope * expected > 0.1


def test_without_the_references_samples_it_only_fits_pictures():
    networks, one = same_networks(), batch()
    (real,) = terms(Ddo(alpha=0.0, beta=2.0), networks, one)
    (fit,) = terms(FlowMatching(), networks, one)
    torch.testing.assert_close(gradient(real.value, networks.student), gradient(fit.value, networks.student))


def test_a_round_takes_the_student_as_the_next_reference():
    def refuse(x, t, r, c):
        raise AssertionError("not this one")

    objective, networks = Ddo(round_steps=4), nets()
    assert [step for step in range(12) if objective.takes_snapshot(step)] == [4, 8]
    list(terms(objective, replace(networks, snapshot=refuse), batch(), step=3))
    list(terms(objective, replace(networks, teacher=refuse), batch(), step=4))
    assert not any(Ddo().takes_snapshot(step) for step in range(100))
