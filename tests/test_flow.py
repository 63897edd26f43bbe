"""Laws of the path and of its velocity, in float64."""

import pytest
import torch

from apexgen import flow
from gaussian import Gaussian

SHAPE = (6, 3, 4, 4)


@pytest.fixture
def path():
    x, z = torch.randn(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64).view(6, 1, 1, 1)
    return x, z, t


def test_path_begins_at_data_and_ends_at_noise(path):
    x, z, t = path
    assert torch.equal(flow.interpolate(x, z, torch.zeros_like(t)), x)
    assert torch.equal(flow.interpolate(x, z, torch.ones_like(t)), z)


def test_velocity_is_the_derivative_of_the_path(path):
    x, z, t = path
    _, derivative = torch.func.jvp(lambda t: flow.interpolate(x, z, t), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(derivative, flow.velocity(x, z))


def test_both_ends_are_recovered_from_any_point(path):
    x, z, t = path
    x_t, v = flow.interpolate(x, z, t), flow.velocity(x, z)
    torch.testing.assert_close(flow.endpoint(x_t, v, t), x)
    torch.testing.assert_close(flow.noise_end(x_t, v, t), z)


def test_step_goes_along_the_path_and_back(path):
    x, z, t = path
    r, v = t / 3, flow.velocity(x, z)
    x_t = flow.interpolate(x, z, t)
    x_r = flow.step(x_t, v, t, r)
    torch.testing.assert_close(x_r, flow.interpolate(x, z, r))
    torch.testing.assert_close(flow.step(x_r, v, r, t), x_t)


def test_score_and_velocity_are_inverse(path):
    x_t, v, t = path
    torch.testing.assert_close(flow.velocity_from_score(flow.score(v, x_t, t), x_t, t), v)


def test_duality_on_the_gaussian(path):
    """Eq. 33: the score read off the exact velocity is the exact score."""
    data, (x_t, _, t) = Gaussian(), path
    torch.testing.assert_close(flow.score(data.velocity(x_t, t), x_t, t), data.score(x_t, t))


def test_velocity_difference_is_score_difference(path):
    """Corollary 1, Eq. 38: v1 - v2 = -(t / (1 - t)) (s1 - s2)."""
    one, two, (x_t, _, t) = Gaussian(1.5, 0.4), Gaussian(-0.5, 1.2), path
    v = one.velocity(x_t, t) - two.velocity(x_t, t)
    s = one.score(x_t, t) - two.score(x_t, t)
    torch.testing.assert_close(v, -(t / (1 - t)) * s)


def test_endpoint_error_is_time_squared_velocity_error(path):
    """Propositions 3 and 4: |f(F) - f(G)|^2 = t^2 |F - G|^2."""
    x_t, F, t = path
    G = torch.randn_like(F)
    ends = (flow.endpoint(x_t, F, t) - flow.endpoint(x_t, G, t)).square()
    torch.testing.assert_close(ends, t**2 * (F - G).square())


def test_regression_on_the_path_finds_the_exact_field():
    """Eq. 4: at one time, least squares of z - x on x_t is the closed-form velocity."""
    data, n = Gaussian(), 400_000
    x, z, t = data.sample(n), torch.randn(n, dtype=torch.float64), torch.tensor(0.3).double()
    x_t, v = flow.interpolate(x, z, t), flow.velocity(x, z)
    slope = torch.cov(torch.stack([x_t, v]))[0, 1] / x_t.var()
    at = torch.tensor([0.5, 1.5], dtype=torch.float64)
    fitted = v.mean() + slope * (at - x_t.mean())
    torch.testing.assert_close(fitted, data.velocity(at, t), atol=0.02, rtol=0)


@pytest.mark.parametrize("ndim", [2, 4])
def test_times_are_float32_columns_within_bounds(generator, ndim):
    uniform = flow.uniform_times(1000, 0.02, 0.98, generator, ndim=ndim)
    normal = flow.logit_normal_times(1000, 0.0, 1.0, generator, ndim=ndim)
    for t in (uniform, normal):
        assert t.shape == (1000, *[1] * (ndim - 1)) and t.dtype == torch.float32
    assert 0.02 <= uniform.min() < 0.04 and 0.96 < uniform.max() <= 0.98
    assert 0 < normal.min() and normal.max() < 1
    assert abs(normal.median() - 0.5) < 0.03


def test_draws_repeat_with_their_generator():
    first, again = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(flow.normal(SHAPE, first), flow.normal(SHAPE, again))
    assert not torch.equal(flow.normal(SHAPE, first), flow.normal(SHAPE, torch.Generator()))
