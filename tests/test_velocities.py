import pytest
import torch

from apexgen.condition import Condition
from apexgen.shift import scalar
from apexgen.velocities import guided


class Counting:
    """A velocity that depends on every input and counts its calls, and the rows it was asked for."""

    calls = rows = 0

    def __call__(self, x, t, r, c):
        self.calls += 1
        self.rows += len(x)
        return x * t + r + c.embeds.mean((1, 2))[:, None]


@pytest.fixture
def inputs():
    c = Condition(torch.randn(4, 5, 3), torch.ones(4, 5))
    return torch.randn(4, 2), torch.rand(4, 1), torch.rand(4, 1), c


@pytest.mark.parametrize("batch", [1, 4])
def test_guidance_is_its_formula_in_one_call(inputs, batch):
    x, t, r, c = inputs
    null = Condition(torch.randn(batch, 5, 3), torch.ones(batch, 5))
    v = Counting()
    guided_v = guided(v, null, 2.5)(x, t, r, c)
    assert v.calls == 1
    v_c, v_null = v(x, t, r, c), v(x, t, r, null.expand(4))
    torch.testing.assert_close(guided_v, v_null + 2.5 * (v_c - v_null))


def test_guidance_ends_at_a_time_above_which_the_velocity_is_its_own(inputs):
    x, _, r, c = inputs
    null, t = c.select([0]), torch.tensor([0.1, 0.7, 0.70001, 1.0])[:, None]
    v = Counting()
    partly, wholly = guided(v, null, 2.5, until=0.7)(x, t, r, c), guided(v, null, 2.5)(x, t, r, c)
    assert torch.equal(partly[:2], wholly[:2])
    torch.testing.assert_close(partly[2:], v(x, t, r, c)[2:])
    assert guided(v, null, 2.5, 0.7)(x.bfloat16(), t, r, c).dtype == v(x.bfloat16(), t, r, c).dtype
    assert guided(v, null, 1.0, 0.7) is v


def test_where_no_row_is_guided_none_is_asked_for_twice(inputs):
    x, _, r, c = inputs
    v, t = Counting(), torch.tensor([0.8, 0.71, 0.9, 1.0])[:, None]
    assert torch.equal(guided(v, c.select([0]), 2.5, until=0.7)(x, t, r, c), Counting()(x, t, r, c))
    assert v.rows == 4
    guided(v, c.select([0]), 2.5, until=0.71)(x, t, r, c)
    assert v.rows == 4 + 8


def test_scale_one_is_the_velocity_itself(inputs):
    v = Counting()
    assert guided(v, inputs[-1], 1.0) is v


def test_scale_zero_does_not_read_the_condition(inputs):
    x, t, r, c = inputs
    field = guided(Counting(), c.select([0]), 0.0)
    torch.testing.assert_close(field(x, t, r, c), field(x, t, r, c.shift(scalar(-1, 3))))
