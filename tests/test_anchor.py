"""What holds APEX's field in place: by the teacher or by pictures, on all rows of a batch or on a share of them."""

from dataclasses import replace

import pytest
import torch

from apexgen.objectives import Batch, Draw, Nets
from apexgen.objectives.apex import Apex
from apexgen.objectives.base import shares
from apexgen.objectives.flow_matching import FlowMatching
from fields import batch, draw, gradient, nets, terms


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
    drawn = replace(draw(Apex(anchor=anchor), 8), shares=shares(0.25, 8))
    fake, quarter = Apex(anchor=anchor, anchor_share=0.25).terms(networks, one, drawn, 0)
    every = slice(3, None, 4)
    few = Draw(tuple(noise[every] for noise in drawn.noises), tuple(t[every] for t in drawn.times))
    rows = Batch(one.c.select(every), one.null, one.x[every])
    _, expected = Apex(anchor=anchor).terms(networks, rows, few, 0)
    torch.testing.assert_close(quarter.value, expected.value)
    whole, _ = Apex(anchor=anchor).terms(networks, one, drawn, 0)
    torch.testing.assert_close(fake.value, whole.value)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.3])
def test_the_parts_of_a_shared_anchor_add_up_to_the_whole(share):
    """Batches of one: most have no row of the anchor, and none of its forward; the others weigh as much more."""
    objective, networks, one = Apex(anchor_share=share), nets(), batch(8)
    drawn, seen = replace(draw(objective, 8), shares=shares(share, 8)), round(share * 8)
    parts = []
    for row in range(8):
        rows = slice(row, row + 1)
        _, anchor = objective.terms(networks, one.rows(rows), drawn.rows(rows), 0)
        assert anchor.value.requires_grad == bool(drawn.shares[row]) and "gap" in anchor.logs
        parts.append(anchor.value)
    assert sum(part.requires_grad for part in parts) == seen
    _, whole = objective.terms(networks, one, drawn, 0)
    torch.testing.assert_close(sum(parts) / 8, whole.value)


def test_a_shared_anchor_expects_the_gradient_of_all():
    """Over every place that the share's pattern may have, the gradient's mean is that of the anchor on all rows."""
    networks, one = nets(), batch(8)

    def gradient_with(held):
        _, anchor = Apex().terms(networks, one, replace(draw(Apex(), 8), shares=held), 0)
        return gradient(anchor.value, networks.student)

    mean = sum(gradient_with(shares(0.25, 8).roll(place)) for place in range(8)) / 8
    torch.testing.assert_close(mean, gradient_with(None))


@pytest.mark.parametrize(
    ("share", "count", "seen"), [(0.25, 8, 2), (0.3, 10, 3), (0.01, 4, 1), (0.9, 3, None), (1, 5, None)]
)
def test_a_share_is_of_whole_rows_evenly_spread_and_weighs_one_in_the_mean(share, count, seen):
    held = shares(share, count)
    if seen is None:
        assert held is None
        return
    assert (held > 0).sum() == seen and held.mean() == pytest.approx(1)
    gaps = (held > 0).nonzero().flatten().diff()
    assert gaps.numel() == 0 or gaps.max() - gaps.min() <= 1


def test_a_draw_shares_as_its_objective_does(generator):
    assert Apex().draw((8, 3, 4, 4), generator).shares is None
    assert torch.equal(Apex(anchor_share=0.25).draw((8, 3, 4, 4), generator).shares, shares(0.25, 8))
