import pytest
import torch

from apexgen.condition import Condition
from apexgen.shift import scalar


def condition(batch=4, pooled=True, value=None):
    fill = (lambda *shape: torch.full(shape, value)) if value is not None else torch.randn
    mask = torch.arange(5) < torch.randint(1, 6, (batch, 1))
    return Condition(fill(batch, 5, 3), mask, fill(batch, 2) if pooled else None)


def test_shift_is_affine_on_embeds_and_pooled_and_leaves_the_mask():
    c = condition()
    shifted = c.shift(scalar(-0.5, 2.0))
    torch.testing.assert_close(shifted.embeds, -0.5 * c.embeds + 2)
    torch.testing.assert_close(shifted.pooled, -0.5 * c.pooled + 2)
    assert shifted.mask is c.mask


def test_shifts_compose():
    c = condition()
    torch.testing.assert_close(c.shift(scalar(2, 1)).shift(scalar(-3, 5)).embeds, c.shift(scalar(-6, 2)).embeds)
    assert torch.equal(c.shift(scalar(-1, 0)).shift(scalar(-1, 0)).embeds, c.embeds)


@pytest.mark.parametrize("pooled", [True, False])
def test_select_by_slice_index_and_mask_agree(pooled):
    c = condition(pooled=pooled)
    keep = torch.tensor([False, True, True, False])
    for rows in (slice(1, 3), torch.tensor([1, 2]), keep, [1, 2]):
        chosen = c.select(rows)
        assert len(chosen) == 2
        assert torch.equal(chosen.embeds, c.embeds[1:3])
        assert torch.equal(chosen.mask, c.mask[1:3])
        assert not pooled or torch.equal(chosen.pooled, c.pooled[1:3])


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("pooled", [True, False])
def test_drop_replaces_exactly_the_given_rows(pooled, batch):
    c, null = condition(pooled=pooled), condition(batch, pooled, value=7.0)
    rows = torch.tensor([True, False, False, True])
    dropped = c.drop(rows, null)
    assert (dropped.embeds[rows] == 7).all()
    assert torch.equal(dropped.mask[rows], null.expand(4).mask[rows])
    assert torch.equal(dropped.embeds[~rows], c.embeds[~rows])
    assert torch.equal(dropped.mask[~rows], c.mask[~rows])
    assert not pooled or (dropped.pooled[rows] == 7).all()


def test_dropping_no_row_changes_nothing():
    c = condition()
    dropped = c.drop(torch.zeros(4, dtype=torch.bool), condition(1))
    assert torch.equal(dropped.embeds, c.embeds) and torch.equal(dropped.pooled, c.pooled)


def test_precision_leaves_the_mask():
    c = condition().to(torch.bfloat16)
    assert c.embeds.dtype == c.pooled.dtype == torch.bfloat16
    assert c.mask.dtype == torch.bool


@pytest.mark.parametrize("pooled", [True, False])
def test_concatenate_undoes_select(pooled):
    c = condition(pooled=pooled)
    whole = Condition.concatenate([c.select(slice(0, 1)), c.select(slice(1, 4))])
    assert torch.equal(whole.embeds, c.embeds) and torch.equal(whole.mask, c.mask)
    assert not pooled or torch.equal(whole.pooled, c.pooled)


def test_texts_of_different_lengths_are_padded_with_what_does_not_count():
    short, long = condition(1).pad(7), condition(2)
    assert short.embeds.shape[1] == short.mask.shape[1] == 7 and not short.mask[:, 5:].any()
    assert len(Condition.concatenate([short, long])) == 3
    for dropped in (long.drop(torch.tensor([True, False]), short), short.drop(torch.tensor([True]), condition(1))):
        assert dropped.embeds.shape[:2] == dropped.mask.shape == (len(dropped), 7)
    with pytest.raises(AssertionError, match="cannot pad 7 tokens to 5"):
        short.pad(5)


def test_expand_repeats_one_row_and_refuses_several():
    one = condition(1)
    assert len(one.expand(3)) == 3 and torch.equal(one.expand(3).embeds[2], one.embeds[0])
    with pytest.raises(AssertionError, match="cannot expand 2 rows to 3"):
        condition(2).expand(3)


@pytest.mark.parametrize("mask, pooled", [(torch.ones(2, 4), None), (torch.ones(2, 5), torch.ones(3, 2))])
def test_shapes_that_disagree_are_refused(mask, pooled):
    with pytest.raises(AssertionError, match=r"mask|pooled"):
        Condition(torch.ones(2, 5, 3), mask, pooled)
