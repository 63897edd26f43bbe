"""What a step costs, in forwards of the network and in memory held, and how many of them a budget buys."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from apexgen.compare.contest import SETTLED, plan
from apexgen.compare.plane import Plane
from apexgen.compare.points import Ring
from apexgen.cost import most_held
from apexgen.objectives import OBJECTIVES, build_objective
from apexgen.objectives.apex import Apex
from apexgen.objectives.ddo import Ddo
from apexgen.objectives.dmd import Dmd
from apexgen.objectives.flow_matching import FlowMatching
from apexgen.objectives.ladd import Ladd
from apexgen.objectives.lcm import Lcm
from apexgen.objectives.progressive import Progressive


@pytest.mark.parametrize(
    "objective, evaluations",
    [
        (FlowMatching(), 3),  # a forward, and a backward of two
        (Lcm(guidance=1.0), 5),  # and one forward each of teacher and average
        (Progressive(), 5),  # and two forwards of the snapshot
        (Ddo(), 16),  # two terms with a gradient, each beside the reference, which draws in eight steps
        (Ladd(r1=0.0, every=3), 6.63),  # the student 3, the teacher 2 and 1 back to the points; one head
        (Apex(), 11),  # three terms with a gradient, the teacher, and the sample drawn twice
        (Apex(redraw=False), 10),
        (Apex(redraw=False, anchor_share=0.25), 7.75),
        (Apex(guidance=2.0), 12),
    ],
)
def test_a_step_costs_what_its_equations_say(objective, evaluations):
    """Within a percent: the gradient of a batch's own points is not needed."""
    assert Plane(Ring(), 1).cost(objective).evaluations == pytest.approx(evaluations, rel=0.01)


def declared():
    """Each objective, and the evaluations of a step that the page declares for it."""
    forms = {"`consistency`, continuous": {"form": "continuous"}, "`apex`, mix form": {"form": "mix"}}
    page = Path(__file__).parents[1] / "docs" / "objectives.md"
    table = page.read_text().partition("| evaluations a step |\n")[2].partition("\n\n")[0]
    for line in table.splitlines()[1:]:
        title, *_, evaluations = (cell.strip() for cell in line.strip("|").split("|"))
        yield pytest.param(title.split("`")[1], forms.get(title, {}), int(evaluations), id=title)


def test_the_page_declares_what_every_objective_costs():
    assert {param.values[0] for param in declared()} == OBJECTIVES.keys()


@pytest.mark.parametrize("name, fields, evaluations", declared())
def test_a_step_costs_what_is_declared(name, fields, evaluations):
    objective = build_objective(name, fields)
    assert round(Plane(Ring(), 1).cost(objective).evaluations) == evaluations


def test_what_backward_needs_is_counted_once_and_given_back():
    """tanh keeps its result, the product both factors, one of them that same result: 2 tensors of 400 bytes."""
    x, y = torch.randn(100, requires_grad=True), torch.randn(100)
    run = lambda: (x.tanh() * y).sum().backward()  # noqa: E731
    assert most_held(run, [x]) == 800
    assert most_held(lambda: [run() for _ in range(3)], [x]) == 800, "a graph that is gone holds nothing"


def test_a_redrawn_sample_brings_the_kl_form_down_to_the_memory_of_flow_matching():
    held = [Plane(Ring(), 1).cost(one).held_bytes for one in (FlowMatching(), Apex(), Apex(redraw=False))]
    assert held[1] == pytest.approx(held[0], rel=0.05) and held[2] == pytest.approx(2 * held[0], rel=0.05)


def test_a_first_stage_that_is_guided_pays_for_it():
    """Two forwards more a step, a hundred times, than the stages whose teacher is a student."""
    world, usual, guided = Plane(Ring(), 1), Progressive(stage_steps=100), Progressive(stage_steps=100, guidance=2.0)
    assert world.cost(guided).evaluations == world.cost(usual).evaluations
    assert world.cost(guided, 0).evaluations - world.cost(guided).evaluations == pytest.approx(2, rel=0.01)
    training = plan(world, guided, 12_000)
    assert plan(world, usual, 12_000).steps == int(12_000 / training.cost.evaluations)
    assert training.steps == pytest.approx((12_000 - 100 * 2) / training.cost.evaluations, abs=2)
    assert training.spent(training.steps) == pytest.approx(12_000, abs=training.cost.evaluations)
    assert training.spent(50) == pytest.approx(50 * (training.cost.evaluations + 2), rel=0.01)


def test_a_generator_that_moves_in_one_step_of_five_costs_what_all_five_do():
    """Whichever of them the warm-up leaves at the step that is counted."""
    world, fives = Plane(Ring(), 1), [Dmd(generator_every=5, warmup=warmup) for warmup in (150, 151)]
    moves, stays = (world.cost(fives[0], step) for step in (150, 151))
    for training in (plan(world, one, 25_000) for one in fives):
        assert training.cost.evaluations == pytest.approx((moves.evaluations + 4 * stays.evaluations) / 5)
        assert training.cost.held_bytes == moves.held_bytes > stays.held_bytes


@pytest.mark.parametrize("objective", [Apex(), Dmd()])
def test_pairs_cost_their_steps_and_a_term_of_the_whole_batch_first_and_of_its_share_then(objective):
    world, held = Plane(Ring(), 1), replace(objective, pair_steps=8, pair_share=0.125)
    for step, share in ((0, 1), (SETTLED, 1 / 8)):
        more = world.cost(held, step).evaluations - world.cost(objective, step).evaluations
        assert more == pytest.approx((8 + 3) * share, rel=0.02)
