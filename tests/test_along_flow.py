"""The laws of objectives that learn jumps along the flow: exact fields are stationary, and papers agree in limits."""

from dataclasses import replace

import pytest
import torch

from apexgen import flow
from apexgen.objectives import Batch, Draw, Nets
from apexgen.objectives.consistency import Consistency
from apexgen.objectives.ctm import Ctm
from apexgen.objectives.flow_matching import FlowMatching
from apexgen.objectives.lcm import Lcm
from apexgen.objectives.mean_flow import MeanFlow
from apexgen.objectives.progressive import Progressive
from apexgen.objectives.rcgm import Rcgm
from apexgen.objectives.shortcut import Shortcut
from apexgen.objectives.twin_flow import TwinFlow
from apexgen.velocities import along_flow
from exact import Exact
from fields import batch, draw, gradient, kept_gradient, nets
from gaussian import Gaussian, empty_condition

# The derivative along the flow


def points(n=64):
    x, t = torch.randn(n, 3, dtype=torch.float64), 0.05 + 0.9 * torch.rand(n, 1, dtype=torch.float64)
    return x, t, t * torch.rand(n, 1, dtype=torch.float64) * 0.9


@pytest.mark.parametrize("difference, tolerance", [(0.0, 1e-12), (1e-4, 1e-4)])
def test_the_derivative_along_the_flow_is_the_closed_one(difference, tolerance):
    """u (t - r) = x_t - x_r, and x_r stays: du/dt = (v - u) / (t - r)."""
    (x, t, r), gaussian = points(), Gaussian()
    v = gaussian.velocity(x, t)
    u, slope = along_flow(gaussian.mean_velocity, x, t, r, empty_condition(64), v, difference)
    torch.testing.assert_close(u, gaussian.mean_velocity(x, t, r))
    torch.testing.assert_close(slope, (v - u) / (t - r), rtol=tolerance, atol=tolerance)


def test_a_difference_stays_between_the_times():
    """The network is never asked at times past 1 or below r; where there is no room at all the slope is 0."""
    asked = []

    def velocity(x, t, r, c):
        asked.append((t, r))
        return x * t

    t = torch.tensor([[1.0], [0.501], [0.5], [1.0]])
    r = torch.tensor([[0.0], [0.5], [0.5], [1.0]])
    _, slope = along_flow(velocity, torch.ones(4, 1), t, r, empty_condition(4), torch.zeros(4, 1), 0.01)
    assert all((t <= 1).all() and (t >= r).all() for t, r in asked)
    torch.testing.assert_close(slope, torch.tensor([[1.0], [1.0], [1.0], [0.0]]))


def test_the_derivative_carries_no_graph_and_the_value_does():
    networks, one = nets(), batch()
    t = torch.rand(4, 1, 1, 1).double()
    for difference in (0.0, 1e-3):
        u, slope = along_flow(networks.student, one.x, t, t / 2, one.c, one.x, difference)
        assert u.requires_grad and not slope.requires_grad
        torch.testing.assert_close(u, networks.student(one.x, t, t / 2, one.c))


# The exact flow is stationary

STATIONARY = {
    "consistency": Consistency(),
    "consistency, small steps": Consistency(stage_steps=1, stages=6),
    "consistency in phases": Consistency(phases=4),
    "sCM": Consistency(form="continuous", tangent_warmup=1),
    "sCM in phases": Consistency(form="continuous", phases=3, tangent_warmup=1),
    "lcm": Lcm(guidance=1.0),
    "progressive": Progressive(),
    "progressive, the last stage": Progressive(stage_steps=1),
    "ctm": Ctm(),
    "ctm, three solver steps": Ctm(solver_steps=3),
    "mean_flow": MeanFlow(equal_share=0.5),
    "rcgm 1": Rcgm(order=1),
    "rcgm 3": Rcgm(order=3),
    "shortcut": Shortcut(bootstrap_share=1.0),
    "twin_flow": TwinFlow(fake_weight=0.0),  # the fake flow's target is right on average only
}


@pytest.mark.parametrize("objective", STATIONARY.values(), ids=STATIONARY.keys())
def test_the_exact_flow_is_stationary(objective):
    """Taught by the exact flow, the exact map has zero gradient in every term, sample by sample."""
    student = Exact()
    networks = Nets(student, Exact(), Exact(), snapshot=Exact())
    one = Batch(empty_condition(16), empty_condition(1), Gaussian().sample((16, 3)))
    drawn = objective.draw((16, 3), torch.Generator().manual_seed(0))
    drawn = Draw(*(tuple(value.double() for value in kind) for kind in (drawn.noises, drawn.times)))
    for loss in objective.terms(networks, one, drawn, 4):
        assert gradient(loss.value, student).abs().max() < 1e-9, loss.name
    student.weights.data += 0.1
    moved = [gradient(loss.value, student).abs().max() for loss in objective.terms(networks, one, drawn, 4)]
    assert max(moved) > 1e-3, "and the gradient is not zero elsewhere"


# Papers agree in their limits


def times(*columns):
    return tuple(torch.full((4, 1, 1, 1), value, dtype=torch.float64) for value in columns)


def same_networks():
    networks = nets()
    return replace(networks, ema=networks.student)


@pytest.mark.parametrize("real", ["data", "teacher"])
def test_rcgm_of_order_one_is_mean_flow_by_a_small_difference(real):
    networks, one, (t, r) = same_networks(), batch(), times(0.7, 0.2)
    rcgm = Rcgm(order=1, difference=1e-4, real=real)
    z = torch.randn(4, 3, 4, 4).double()
    x_t = rcgm.start(one, z, t)
    v = rcgm.real_velocity(networks, one, z, x_t, t, t)
    u, slope = along_flow(networks.student, x_t, t, r, one.c, v, 0.0)
    expected = v - (t - r) * slope - u  # Mean Flows, Eq. 6
    torch.testing.assert_close(rcgm.residual(networks, one, x_t, t, r, v, u), expected, rtol=1e-3, atol=1e-3)


def test_rcgm_at_equal_times_is_flow_matching():
    networks, one, (t,) = same_networks(), batch(), times(0.7)
    v = one.x + 1
    residual = Rcgm().residual(networks, one, one.x, t, t, v, one.x)
    assert torch.equal(residual, v - one.x)


def test_ctm_to_time_zero_is_consistency():
    networks, one, (t, s, zero) = same_networks(), batch(1), times(0.8, 0.4, 0.0)
    t, s, zero = t[:1], s[:1], zero[:1]
    noises = (torch.randn(1, 3, 4, 4).double(),)
    jump, _ = Ctm(power=0.0).terms(networks, one, Draw(noises, (t, s, zero)), 0)
    halves = Consistency(power=0.0)  # at first the step down is t / 2
    (consistency,) = halves.terms(networks, one, Draw(noises, (t,)), 0)
    torch.testing.assert_close(jump.value * t.item() ** 2, consistency.value * (t - s).item())


@pytest.mark.parametrize("phases", [1, 3])
def test_the_limit_of_small_steps_is_the_continuous_form(phases):
    """The two gradients of one sample point the same way."""
    networks, one = same_networks(), batch(1)
    drawn = draw(Consistency(), 1)
    small = Consistency(power=0.0, stage_steps=1, stages=16, phases=phases)
    limit = Consistency(form="continuous", tangent_warmup=1, phases=phases)
    a, b = (gradient(next(form.terms(networks, one, drawn, 16)).value, networks.student) for form in (small, limit))
    assert torch.cosine_similarity(a, b, dim=0) > 1 - 1e-5


@pytest.mark.parametrize("step", [0, 250, 900])
def test_the_weight_of_a_discrete_step_is_one_over_its_length(step):
    """Where both velocities are constant the error is (t - s)(u - v): a norm of it over t - s is that of u - v."""
    one = batch()
    u, v = torch.randn_like(one.x[:1]), torch.randn_like(one.x[:1])
    constant = replace(nets(), student=lambda x, t, r, c: u.expand_as(x), teacher=lambda x, t, r, c: v.expand_as(x))
    objective = Consistency(floor=1e-12)
    [loss] = objective.terms(constant, one, draw(objective), step)
    assert loss.value.item() == pytest.approx((u - v).square().mean().sqrt().item(), rel=1e-3)


@pytest.mark.parametrize("phases", [2, 4])
def test_a_time_just_above_an_edge_is_finite(phases):
    """The step from it is so short that its end is the same number: 0 / 0, once in a thousand steps of 32."""
    objective, networks, one = Consistency(phases=phases), nets(), batch()
    x, t = one.x.float(), torch.full((4, 1, 1, 1), 0.5 + 2**-19)
    c, null = one.c.to(torch.float32), one.null.to(torch.float32)
    for network in (networks.student.float(), networks.teacher.float()):
        network.zero_grad()
    [loss] = objective.terms(networks, Batch(c, null, x), Draw((torch.randn_like(x),), (t,)), step=900)
    loss.value.backward()
    assert loss.value.isfinite() and kept_gradient(networks.student).isfinite().all()


def test_one_edge_is_zero_and_phases_have_their_own():
    t = torch.tensor([0.01, 0.25, 0.3, 0.5, 1.0])
    assert torch.equal(Consistency().edge(t), torch.zeros(5))
    assert torch.equal(Consistency(phases=4).edge(t), torch.tensor([0.0, 0.0, 0.25, 0.25, 0.75]))


@pytest.mark.parametrize("objective", [Shortcut(real="data"), MeanFlow(real="data", equal_share=1.0, power=0.0)])
def test_with_equal_times_it_is_flow_matching(objective):
    networks, one = nets(), batch()
    drawn = draw(objective)
    loss = next(loss for loss in objective.terms(networks, one, drawn, 0))
    (flow_loss,) = FlowMatching().terms(networks, one, Draw(drawn.noises, drawn.times[:1]), 0)
    torch.testing.assert_close(loss.value, flow_loss.value)


def test_a_long_step_is_the_mean_of_two_short_ones():
    networks, one, objective = nets(), batch(), Shortcut(bootstrap_share=1.0)
    drawn = draw(objective)
    (z,), (_, t, r) = drawn.noises, drawn.times
    x, middle = flow.interpolate(one.x, z, t), (t + r) / 2
    y = x
    for begin, end in ((t, middle), (middle, r)):
        y = flow.step(y, networks.ema(y, begin, end, one.c), begin, end)
    expected = (networks.student(x, t, r, one.c) - (x - y) / (t - r)).square().mean()
    _, bootstrap = objective.terms(networks, one, drawn, 0)
    torch.testing.assert_close(bootstrap.value, expected)


# Flaws of others, each once


@pytest.mark.parametrize("n", range(1, 9))
def test_kinds_of_sample_come_by_chance_so_that_no_batch_size_lacks_one(n):
    """Cutting a batch of 6 in rounded quarters left none for the fake trajectory; here rows are drawn one by one."""
    generator = torch.Generator().manual_seed(0)
    drawn = [Rcgm(one_share=0.25, many_share=0.25).draw((n, 3), generator) for _ in range(2000 // n)]
    t, r = (torch.cat([one.times[k].flatten() for one in drawn]) for k in (0, 1))
    one, many = (t == 1) & (r == 0), (r >= 0.95 * t)
    assert one.float().mean() == pytest.approx(0.25, abs=0.04)
    assert many.float().mean() == pytest.approx(0.25 + 0.5 * 0.05, abs=0.04)
    assert ((r >= 0) & (r <= t)).all()


def test_one_step_samples_are_guided_too():
    """With a strict bound on the guided times, samples at exactly t = 1 were left without guidance."""
    networks, one = nets(), batch()
    seen = []

    def teacher(x, t, r, c):
        seen.append(len(c))
        return networks.teacher(x, t, r, c)

    list(
        Rcgm(one_share=1.0, many_share=0.0, guidance=3.0).terms(
            replace(networks, teacher=teacher), one, draw(Rcgm(one_share=1.0, many_share=0.0)), 0
        )
    )
    assert seen == [8], "both halves of all four samples"


def test_the_teacher_is_asked_at_the_time_its_input_is_noised_to():
    """Telling the second time as t - r / 2 asks a stock teacher for t / 2 where r = t."""
    asked = []

    def teacher(x, t, r, c):
        asked.append(t)
        return torch.zeros_like(x)

    objective, one = MeanFlow(), batch()
    drawn = draw(objective)
    list(objective.terms(replace(nets(), teacher=teacher), one, drawn, 0))
    assert torch.equal(asked[0], drawn.times[0])
