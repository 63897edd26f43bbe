"""Terms that see a share of the step, and one step held to where the real field carries its noise."""

from dataclasses import replace

import pytest
import torch

from apexgen.objectives import Batch, Draw, Nets
from apexgen.objectives.apex import Apex
from apexgen.objectives.base import of_share, shares
from apexgen.objectives.dmd import Dmd
from fields import batch, draw, nets
from gaussian import Gaussian, affine_generator, empty_condition

PAIRED = {"pair_steps": 300, "pair_weight": 0.5, "pair_share": 0.5}


def term(name, objective, student, teacher, step, n=4096):
    """One of an objective's terms, where student and fake field are one."""
    drawn = objective.draw((n, 2), torch.Generator().manual_seed(0))
    one = Batch(empty_condition(n), empty_condition(1))
    terms = objective.terms(Nets(student, teacher, teacher, student), one, drawn, step)
    return next(term.value for term in terms if term.name == name)


@pytest.mark.parametrize("kind", [Apex, Dmd])
@pytest.mark.parametrize(("mean", "scale"), [(1.5, 0.4), (2.5, 0.4), (1.5, 0.0), (0.5, 1.0)])
def test_pairs_are_the_distance_to_the_ends_of_the_real_paths(kind, mean, scale):
    """Of N(m, s^2) those are m + s w, so that G(w) = mean + scale w is (mean - m)^2 + (scale - s)^2 away on average.

    They weigh one while the student prepares, and what they are told to afterwards.
    """
    data, objective = Gaussian(m=1.5, s=0.4), kind(warmup=10, **PAIRED)
    away = (mean - data.m) ** 2 + (scale - data.s) ** 2
    for step, weight in ((9, 1), (10, 0.5)):
        pairs = term("pairs", objective, affine_generator(mean, scale), data.velocity, step)
        assert float(pairs) == pytest.approx(weight * away, abs=0.03)


def test_pairs_say_which_noise_goes_where_and_the_push_does_not():
    """A generator of the data's law that turns each noise around is at rest for KL, and twice the deviation away."""
    data, turned = Gaussian(m=1.5, s=0.4), torch.tensor(-0.4, requires_grad=True)
    mirror = affine_generator(data.m, turned)

    def slope(name):
        (found,) = torch.autograd.grad(term(name, Apex(warmup=0, **PAIRED), mirror, data.velocity, 0), turned)
        return float(found)

    assert abs(slope("kl")) < 0.01
    assert slope("pairs") == pytest.approx(-0.4 - data.s, abs=0.05), "descent turns it back"


def test_pairs_are_held_from_the_first_step_on_and_only_where_asked():
    networks, one = nets(), batch()
    for objective in (Apex(warmup=10, pair_steps=2), Dmd(warmup=10, pair_steps=2)):
        names = [found.name for found in objective.terms(networks, one, draw(objective), 0)]
        assert names.count("pairs") == 1 and not {"kl", "generator"} & set(names)
        plain = replace(objective, pair_steps=0)
        assert "pairs" not in [found.name for found in plain.terms(networks, one, draw(plain), 10)]


@pytest.mark.parametrize(("name", "field"), [("anchor", "anchor_share"), ("pairs", "pair_share")])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.3])
def test_the_parts_of_a_share_add_up_to_the_whole(name, field, share):
    """Batches of one: most have no row of the term, and none of its forwards; the others weigh as much more."""
    objective, networks, one = Apex(warmup=0, pair_steps=2), nets(), batch(8)
    drawn, seen = replace(draw(objective, 8), shares=shares(8, {field: share})), round(share * 8)

    def found(rows):
        terms = objective.terms(networks, one.rows(rows), drawn.rows(rows), 0)
        return next(term.value for term in terms if term.name == name)

    parts = [found(slice(row, row + 1)) for row in range(8)]
    assert [part.requires_grad for part in parts] == (drawn.shares[field] > 0).tolist()
    assert sum(part.requires_grad for part in parts) == seen
    torch.testing.assert_close(sum(parts) / 8, found(slice(0, 8)))


@pytest.mark.parametrize(
    ("share", "count", "seen"), [(0.25, 8, 2), (0.3, 10, 3), (0.01, 4, 1), (0.9, 3, None), (1, 5, None)]
)
def test_a_share_is_of_whole_rows_evenly_spread_and_weighs_one_in_the_mean(share, count, seen):
    held = shares(count, {"anchor_share": share})
    if seen is None:
        assert held == {}
        return
    (weights,) = held.values()
    assert (weights > 0).sum() == seen and weights.mean() == pytest.approx(1)
    gaps = (weights > 0).nonzero().flatten().diff()
    assert gaps.numel() == 0 or gaps.max() - gaps.min() <= 1


def test_a_term_is_called_with_the_rows_that_have_a_share():
    x = torch.arange(8.0)
    assert of_share(None, lambda rows: x[rows].sum()) == 28
    assert of_share(torch.tensor([0.0, 2.0] * 4), lambda rows: x[rows].mean()) == 4
    assert of_share(torch.zeros(8), lambda rows: pytest.fail("called")) == 0


def test_a_draw_shares_as_its_objective_does(generator):
    shape = (8, 3, 4, 4)
    assert Apex().draw(shape, generator).shares == Dmd().draw(shape, generator).shares == {}
    drawn = Apex(anchor_share=0.25, pair_steps=4, pair_share=0.5).draw(shape, generator)
    for name, share in (("anchor_share", 0.25), ("pair_share", 0.5)):
        assert torch.equal(drawn.shares[name], shares(8, {name: share})[name])
    assert Draw(drawn.noises, drawn.times).rows(slice(0, 4)).shares == {}
