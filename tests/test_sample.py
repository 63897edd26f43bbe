import pytest
import torch

from apexgen import sample
from gaussian import Gaussian, empty_condition

DATA = Gaussian()


def noise(n):
    return torch.randn(n, 2, dtype=torch.float64)


def euler_error(steps, z):
    x = sample.euler(DATA.velocity, z, empty_condition(len(z)), sample.uniform_grid(steps).double())
    zero, one = z.new_zeros(1), z.new_ones(1)
    return (x - DATA.flow_map(z, one, zero)).abs().max()


def test_euler_has_order_one():
    z = noise(500)
    errors = torch.stack([euler_error(steps, z) for steps in (64, 128, 256)])
    orders = (errors[:-1] / errors[1:]).log2()
    assert ((0.85 < orders) & (orders < 1.15)).all(), orders


def test_one_step_of_the_exact_mean_velocity_is_the_flow_map():
    z = noise(200_000)
    x = sample.one_step(DATA.mean_velocity, z, empty_condition(len(z)))
    torch.testing.assert_close(x, DATA.flow_map(z, z.new_ones(1), z.new_zeros(1)))
    assert abs(x.mean() - DATA.m) < 0.01 and abs(x.std() - DATA.s) < 0.01


def test_one_step_of_the_velocity_is_the_mean_of_the_data():
    """Why distillation is needed: at t = 1 the noise says nothing of the data."""
    x = sample.one_step(DATA.velocity, noise(100), empty_condition(100))
    torch.testing.assert_close(x, torch.full_like(x, DATA.m))


def test_steps_of_the_exact_mean_velocity_compose():
    z, c = noise(100), empty_condition(100)
    many = sample.euler(DATA.mean_velocity, z, c, sample.uniform_grid(7).double())
    torch.testing.assert_close(many, sample.one_step(DATA.mean_velocity, z, c))


def test_renoise_of_the_exact_mean_velocity_keeps_the_law():
    z = noise(200_000)
    noises = [noise(len(z)), noise(len(z))]
    times = sample.uniform_grid(3)
    x = sample.renoise(DATA.mean_velocity, z, empty_condition(len(z)), times, noises)
    assert abs(x.mean() - DATA.m) < 0.01 and abs(x.std() - DATA.s) < 0.01


def test_renoise_on_one_interval_is_one_step():
    z, c = noise(50), empty_condition(50)
    again = sample.renoise(DATA.mean_velocity, z, c, sample.uniform_grid(1), [])
    assert torch.equal(again, sample.one_step(DATA.mean_velocity, z, c))


def test_generate_sees_float32_times_that_start_at_one_and_needs_no_graph():
    times = []

    def velocity(x, t, r, c):
        assert t.dtype == r.dtype == torch.float32 and t.shape == (3, 1, 1, 1)
        times.append((t[0].item(), r[0].item()))
        return x * weight

    weight = torch.ones((), requires_grad=True)
    z = torch.randn(3, 2, 4, 4)
    kept = z.clone()
    x = sample.generate(velocity, empty_condition(3), z, steps=4)
    assert times == [(1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)]
    assert x.shape == z.shape and not x.requires_grad
    assert torch.equal(z, kept)


@pytest.mark.parametrize("steps", [0, -3])
def test_fewer_than_one_step_is_refused_with_the_line_to_write(steps):
    with pytest.raises(ValueError, match=f"--steps must be at least 1, got {steps}.*--steps 1"):
        sample.generate(DATA.velocity, empty_condition(1), noise(1), steps)
