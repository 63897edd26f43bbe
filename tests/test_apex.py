"""The laws of APEX: the paper's theorems, the sign of its gradient, its noises and its terms."""

from dataclasses import replace

import pytest
import torch

from apexgen import flow
from apexgen.objectives import Batch, Draw, Nets
from apexgen.objectives.apex import Apex
from apexgen.objectives.base import shares
from apexgen.objectives.flow_matching import FlowMatching
from apexgen.shift import scalar
from fields import batch, draw, gradient, nets, terms
from gaussian import Gaussian, affine_generator, empty_condition

# The paper's theorems


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_theorem_1(share):
    """grad L_mix = grad G, and G - L_mix = lambda (1 - lambda) |v - v_fake|^2 does not hold F."""
    objective, networks, one = Apex(form="mix", mix=share), nets(), batch()
    (_, z), (t, _) = (lambda d: (d.noises, d.times))(draw(objective))
    term = next(terms(objective, networks, one))
    mix = term.value
    x_t, v = flow.interpolate(one.x, z, t), flow.velocity(one.x, z)
    F = networks.student(x_t, t, t, one.c)
    v_fake = networks.student(x_t, t, t, one.c.shift(scalar(-1, 0))).detach()
    G = (1 - share) * (F - v).square().mean() + share * (F - v_fake).square().mean()  # Eq. 22
    constant = share * (1 - share) * (v - v_fake).square().mean()
    torch.testing.assert_close(G - mix, constant)
    torch.testing.assert_close(term.logs["gap"], (F - v_fake).abs().mean())
    torch.testing.assert_close(gradient(mix, networks.student), gradient(G, networks.student))


def test_mix_at_lambda_zero_is_flow_matching():
    networks, one, mixed = nets(), batch(), Apex(form="mix", mix=0.0)
    both = draw(mixed)
    mix = next(mixed.terms(networks, one, both, 0)).value
    same = Draw(noises=both.noises[1:], times=both.times[:1])
    flow_loss = next(FlowMatching().terms(networks, one, same, 0)).value
    torch.testing.assert_close(mix, flow_loss)
    torch.testing.assert_close(gradient(mix, networks.student), gradient(flow_loss, networks.student))


@pytest.mark.parametrize("through", [False, True])
def test_the_gradient_of_fake_flows_through_the_samples_only_when_asked(through):
    """Eq. 11 and 12, written out."""
    objective, networks, one = Apex(form="mix", fake_gradient=through), nets(), batch()
    drawn, student = draw(objective), networks.student
    (w, z), (t, s) = drawn.noises, drawn.times
    x_t = flow.interpolate(one.x, z, t)
    x_fake = flow.endpoint(x_t, student(x_t, t, t, one.c), t)
    x_fake = x_fake if through else x_fake.detach()
    v = student(flow.interpolate(x_fake, w, s), s, s, one.c.shift(scalar(-1, 0)))
    expected = (v - (w - x_fake)).square().mean()
    _, fake = objective.terms(networks, one, drawn, 0)
    torch.testing.assert_close(fake.value, expected)
    torch.testing.assert_close(gradient(fake.value, student), gradient(expected, student))


def kl_of(student, teacher, n=512, seed=0, **fields):
    objective = Apex(warmup=0, **fields)
    one = Batch(empty_condition(n), empty_condition(1))
    drawn = objective.draw((n, 2), torch.Generator().manual_seed(seed))
    *_, kl = objective.terms(Nets(student, teacher, teacher), one, drawn, 0)
    assert kl.name == "kl"
    return kl.value


@pytest.mark.parametrize("start, scale", [(-1.0, 1.0), (3.0, 1.0), (1.5, 1.2), (1.5, 0.1)])
def test_one_descent_step_of_kl_moves_samples_toward_the_data(start, scale):
    """The sign of Eq. 13, on a 2-D Gaussian with the exact real and fake fields."""
    data = Gaussian(m=1.5, s=0.4)
    mean, deviation = torch.full((2,), start), torch.full((2,), scale)
    mean.requires_grad_(), deviation.requires_grad_()
    kl = kl_of(affine_generator(mean, deviation), data.velocity, n=4096)
    to_mean, to_deviation = torch.autograd.grad(kl, (mean, deviation))
    if start != data.m:
        assert ((mean - data.m).sign() == to_mean.sign()).all()
    else:
        assert ((deviation - data.s).sign() == to_deviation.sign()).all()


def test_descent_of_kl_ends_at_the_law_of_the_data():
    data = Gaussian(m=1.5, s=0.4)
    mean, deviation = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([mean, deviation], lr=0.05)
    for step in range(250):
        optimizer.zero_grad()
        kl_of(affine_generator(mean, deviation), data.velocity, seed=step).backward()
        optimizer.step()
    torch.testing.assert_close(mean, torch.full_like(mean, data.m), atol=0.05, rtol=0)
    torch.testing.assert_close(deviation, torch.full_like(mean, data.s), atol=0.05, rtol=0)


# Randomness


def test_the_two_noises_are_independent(generator):
    for objective in (Apex(), Apex(form="mix")):
        w, z = objective.draw((100, 3, 8, 8), generator).noises
        assert abs(torch.corrcoef(torch.stack([w.flatten(), z.flatten()]))[0, 1]) < 0.02


def test_one_noise_for_both_would_make_the_fake_branch_trivial():
    """Then the noise can be read off x_t, and a field exists that answers without an error."""
    m, s = 1.5, 0.4

    def reads_the_noise(x, t, r, c):
        w = (x - (1 - t) * m) / ((1 - t) * s + t)
        return w - (m + s * w)

    w, z = torch.randn(2, 2000, 2)
    t = torch.rand(2000, 1) * 0.96 + 0.02
    one = Batch(empty_condition(2000), empty_condition(1))
    best = affine_generator(torch.tensor(m), torch.tensor(s))

    def fake(student, noises):
        return next(Apex().terms(Nets(student, best, best), one, Draw(noises, (t,)), 0)).value

    assert fake(reads_the_noise, (w, w)) < 1e-9
    assert fake(best, (w, z)) > 0.3
    assert fake(reads_the_noise, (w, z)) > fake(best, (w, z))


def test_only_the_kl_form_with_the_teacher_needs_no_pictures():
    assert not Apex().needs_pictures
    assert all(o.needs_pictures for o in (Apex(anchor="data"), Apex(form="mix"), FlowMatching()))


# The KL form


def test_the_warm_up_leaves_out_kl():
    names = [[loss.name for loss in terms(Apex(warmup=3), nets(), batch(), step)] for step in (0, 2, 3)]
    assert names == [["fake", "anchor"], ["fake", "anchor"], ["fake", "anchor", "kl"]]


@pytest.mark.parametrize(
    "objective, graphs",
    [
        (Apex(warmup=9), [False, True, True]),
        (Apex(warmup=0, redraw=False), [True, True, True]),
        (Apex(warmup=0), [False, True, True, True]),
    ],
)
def test_the_generator_keeps_a_graph_only_where_it_is_used(objective, graphs):
    networks, seen = nets(), []

    def student(x, t, r, c):
        seen.append(torch.is_grad_enabled())
        return networks.student(x, t, r, c)

    list(terms(objective, replace(networks, student=student), batch()))
    assert seen == graphs


def test_the_anchor_on_the_teacher_is_zero_at_the_teacher():
    student = nets().student
    _, anchor = terms(Apex(), Nets(student, student, student), batch())
    assert anchor.name == "anchor" and anchor.value == 0


def test_the_anchor_on_data_is_flow_matching():
    objective, networks, one = Apex(anchor="data"), nets(), batch()
    drawn = draw(objective)
    _, anchor = objective.terms(networks, one, drawn, 0)
    (flow_loss,) = FlowMatching().terms(networks, one, Draw(drawn.noises[1:], drawn.times), 0)
    torch.testing.assert_close(anchor.value, flow_loss.value)


@pytest.mark.parametrize("anchor", ["teacher", "data"])
def test_a_shared_anchor_is_that_of_its_rows(anchor):
    """The anchor on a quarter of eight is the anchor on two; the other terms see the whole batch."""
    networks, one = nets(), batch(8)
    drawn = replace(draw(Apex(anchor=anchor), 8), shares=shares(8, {"anchor_share": 0.25}))
    fake, quarter = Apex(anchor=anchor, anchor_share=0.25).terms(networks, one, drawn, 0)
    every = slice(3, None, 4)
    few = Draw(tuple(noise[every] for noise in drawn.noises), tuple(t[every] for t in drawn.times))
    rows = Batch(one.c.select(every), one.null, one.x[every])
    _, expected = Apex(anchor=anchor).terms(networks, rows, few, 0)
    torch.testing.assert_close(quarter.value, expected.value)
    whole, _ = Apex(anchor=anchor).terms(networks, one, drawn, 0)
    torch.testing.assert_close(fake.value, whole.value)


def test_a_shared_anchor_expects_the_gradient_of_all():
    """Over every place that the share's pattern may have, the gradient's mean is that of the anchor on all rows."""
    networks, one = nets(), batch(8)

    def gradient_with(held):
        _, anchor = Apex().terms(networks, one, replace(draw(Apex(), 8), shares=held), 0)
        return gradient(anchor.value, networks.student)

    quarter = shares(8, {"anchor_share": 0.25})["anchor_share"]
    mean = sum(gradient_with({"anchor_share": quarter.roll(place)}) for place in range(8)) / 8
    torch.testing.assert_close(mean, gradient_with({}))


@pytest.mark.parametrize("form", ["kl", "mix"])
def test_times_are_drawn_between_their_bounds(form, generator):
    for t in Apex(form=form, time_low=0.3, time_high=0.4).draw((500, 3, 4, 4), generator).times:
        assert t.shape == (500, 1, 1, 1) and t.dtype == torch.float32
        assert 0.3 <= t.min() < 0.31 and 0.39 < t.max() <= 0.4


def test_the_difference_of_the_fields_is_logged():
    logs = {}
    for loss in terms(Apex(warmup=0), nets(), batch()):
        logs |= loss.logs
    assert logs["gap"] > 0


def test_the_shift_is_what_tells_the_fake_field_from_the_real_one():
    networks, one = nets(), batch()
    teacher_is_student = Nets(networks.student, networks.student, networks.student)
    shifted, same = (list(terms(Apex(warmup=0, shift_scale=a), teacher_is_student, one))[-1].value for a in (-1.0, 1.0))
    assert same == 0 and shifted > 0


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_the_clamp_hides_no_divergence(bad):
    networks = nets()
    broken = Nets(networks.student, lambda x, t, r, c: torch.full_like(x, bad), networks.ema)
    *_, kl = terms(Apex(warmup=0, anchor="data"), broken, batch())
    assert kl.name == "kl" and not kl.value.isfinite()
