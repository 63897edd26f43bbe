"""The laws of DMD: what its two networks are given, when they move, and where to."""

from dataclasses import replace

import pytest
import torch

from apexgen import flow
from apexgen.objectives import Batch, Draw, Nets
from apexgen.objectives.apex import Apex
from apexgen.objectives.dmd import Dmd
from apexgen.student import Student
from exact import Exact
from fields import batch, draw, gradient, nets, terms
from gaussian import Gaussian, empty_condition
from small import backbone, inputs


def test_the_generator_rests_where_both_fields_agree():
    networks = Nets(Exact(), Exact(), Exact(), Exact())
    one = Batch(empty_condition(8), empty_condition(1))
    drawn = Dmd().draw((8, 3), torch.Generator().manual_seed(0))
    drawn = Draw(*(tuple(value.double() for value in kind) for kind in (drawn.noises, drawn.times)))
    _, generator = Dmd(warmup=0).terms(networks, one, drawn, 0)
    assert gradient(generator.value, networks.student).abs().max() < 1e-12


@pytest.mark.parametrize("normalise", [False, True])
def test_a_step_moves_the_samples_toward_the_data(normalise):
    """The samples' own field is exact, of a Gaussian 2 to the left of the data's: the mean must move right."""
    data, mine = Gaussian(m=1.5, s=0.4), Gaussian(m=-0.5, s=0.4)
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    student = lambda x, t, r, c: mine.mean_velocity(x, t, r) - shift  # noqa: E731
    networks = Nets(student, data.velocity, student, mine.velocity)
    one = Batch(empty_condition(256), empty_condition(1))
    drawn = Dmd().draw((256, 1), torch.Generator().manual_seed(0))
    _, generator = Dmd(warmup=0, normalise=normalise).terms(networks, one, drawn, 0)
    (slope,) = torch.autograd.grad(generator.value, shift)
    assert slope < -0.1, "descent raises the shift, and with it every sample"


def test_without_the_normaliser_it_is_the_kl_form_with_another_fake_field_and_a_factor_t():
    networks, one = nets(), batch()
    dmd, drawn = Dmd(warmup=0, normalise=False), draw(Dmd())
    (w, z), (t,) = drawn.noises, drawn.times
    x_fake = w - networks.student(w, t * 0 + 1, t * 0, one.c).detach()
    x_t = flow.interpolate(x_fake, z, t)
    push = t * (networks.fake(x_t, t, t, one.c) - networks.teacher(x_t, t, t, one.c))
    _, generator = dmd.terms(networks, one, drawn, 0)
    torch.testing.assert_close(generator.value, push.square().mean())
    shifted = replace(networks, student=lambda x, t, r, c: networks.student(x, t, r, one.c))
    fake, *_ = Apex(warmup=0).terms(shifted, one, drawn, 0)
    own, *_ = dmd.terms(replace(networks, fake=networks.student), one, drawn, 0)
    torch.testing.assert_close(own.value, fake.value)


def test_a_normalised_push_does_not_depend_on_how_large_the_difference_is():
    far = []
    for factor in (1.0, 3.0):
        networks = Nets(
            lambda x, t, r, c: x * 0 + torch.ones(1, requires_grad=True).double(),
            lambda x, t, r, c, factor=factor: x - factor * torch.ones_like(x) / t,
            None,
            lambda x, t, r, c: x,
        )
        one = Batch(empty_condition(4), empty_condition(1))
        w = torch.ones(4, 2).double()
        drawn = Draw((w, w * 0), (torch.full((4, 1), 0.5).double(),))
        *_, generator = Dmd(warmup=0).terms(networks, one, drawn, 0)
        far.append(generator.value)
    torch.testing.assert_close(far[0], far[1])


def test_the_generator_waits_for_the_warm_up_and_then_takes_its_turns():
    objective, networks, one = Dmd(warmup=2, generator_every=3), nets(), batch()
    names = [[loss.name for loss in terms(objective, networks, one, step)] for step in range(7)]
    both, alone = ["fake", "generator"], ["fake"]
    assert names == [alone, alone, both, alone, alone, both, alone]


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_students_fake_weights_are_a_second_network_on_the_same_module(mode):
    student = Student(backbone(), mode, rank=4, with_fake=True)
    x, t, c = inputs(student.backbone)
    nets = student.nets()
    with torch.no_grad():
        assert torch.equal(nets.fake(x, t, t, c), nets.teacher(x, t, t, c))
    nets.fake(x, t, t, c).square().mean().backward()
    assert all(weight.grad is None for weight in student.weights.values())
    assert any(weight.grad is not None for name, weight in student.trained.items() if name.startswith("fake."))
    assert Student(backbone(), mode, rank=4).nets().fake is None
