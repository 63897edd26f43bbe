"""The dissection of APEX: its exact field is exact, and a student that is nothing but the teacher shows it."""

import torch

from apexgen.compare.anatomy import dissect, velocity_of
from apexgen.compare.plane import Plane
from apexgen.compare.points import Ring
from apexgen.objectives.apex import Apex
from gaussian import Gaussian


def test_the_field_of_many_samples_is_the_field_of_their_distribution():
    data = Gaussian(m=0.7, s=0.5)
    generator = torch.Generator().manual_seed(0)
    samples = 0.7 + 0.5 * torch.randn(20_000, 1, generator=generator).double()
    t = torch.linspace(0.2, 0.95, 50).double()[:, None]
    x_t = (1 - t) * samples[:50] + t * torch.randn(50, 1, generator=generator).double()
    torch.testing.assert_close(velocity_of(samples, x_t, t), data.velocity(x_t, t), rtol=0.02, atol=0.05)


def test_the_field_of_one_sample_leads_to_it():
    sample, t = torch.tensor([[3.0, -1.0]]), torch.tensor([[0.01], [0.5], [1.0]])
    x_t = torch.tensor([[2.0, 2.0], [0.0, 0.0], [-1.0, 5.0]])
    torch.testing.assert_close(x_t - t * velocity_of(sample, x_t, t), sample.expand(3, 2))


def test_the_teacher_itself_knows_nothing_of_its_own_samples():
    """Told no shift, it answers with the real field: the error is that field's own, and nothing pushes."""
    world = Plane(Ring(), 30)
    seen = dissect(world, Apex(shift_scale=1.0), world.teacher)
    assert abs(seen.fake_error - 1) < 1e-5 and abs(seen.push_cosine) < 1e-5


def test_the_warm_up_brings_the_fake_field_to_the_samples():
    world, seen = Plane(Ring(), 300), {}

    def watch(step, average):
        if step in (1, 120):
            seen[step] = dissect(world, Apex(), average)

    world.train("", Apex(), 120, 1, watch)
    assert seen[120].fake_error < 0.3 < seen[1].fake_error and seen[120].push_cosine > 0.85
