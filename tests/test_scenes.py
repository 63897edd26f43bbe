"""The embedded world: what is held out stays out, figures lie where captions ask, captions are spread evenly."""

import itertools

import numpy as np
import pytest

from apexgen.rules import RELATIONS
from apexgen.scenes.draw import BESIDE, CELLS, MARGIN, cells, draw_pictures, draw_scene
from apexgen.scenes.prompts import (
    TASKS,
    captions,
    color_is_held_out,
    count_is_held_out,
    draw_captions,
    pair_is_held_out,
    relation_is_held_out,
)
from apexgen.scenes.world import COLORS, SHAPES, SIZE


@pytest.mark.parametrize("task", TASKS)
def test_no_held_out_caption_is_trained_on(task):
    trained, held = ({caption.text for caption in captions(task, hidden)} for hidden in (False, True))
    assert trained and held and not trained & held


@pytest.mark.parametrize("task", [task for task in TASKS if task != "single_object"])
def test_what_is_held_out_is_held_out_in_every_wording(task):
    trained, held = ({caption.requests for caption in captions(task, hidden)} for hidden in (False, True))
    assert not trained & held


def test_training_never_names_a_held_out_combination():
    for caption in (c for task in TASKS for c in captions(task, held_out=False)):
        first, *rest = caption.requests
        for request in caption.requests:
            assert not (request.color and color_is_held_out(request.shape, request.color)), caption.text
            assert not count_is_held_out(request.shape, request.count), caption.text
        for other in rest:
            if caption.task == "two_object":
                assert not pair_is_held_out(first.shape, other.shape), caption.text
            if other.relation:
                assert not relation_is_held_out(other.shape, other.relation, first.shape), caption.text


def test_no_training_picture_shows_a_held_out_number():
    random = np.random.default_rng(0)
    for caption in draw_captions(200, held_out=False, seed=1):
        shapes = [figure.shape for figure in draw_scene(caption, random).figures]
        assert not any(count_is_held_out(shape, shapes.count(shape)) for shape in SHAPES), caption.text


def test_a_rule_holds_out_a_part_and_never_all():
    assert all(sum(color_is_held_out(s, c) for c in COLORS) == 1 for s in SHAPES)
    pairs = [p for p in itertools.combinations(SHAPES, 2) if pair_is_held_out(*p)]
    assert {frozenset(p) for p in pairs} == {frozenset(("square", "ring")), frozenset(("triangle", "cross"))}
    triples = [(a, r, b) for a, b in itertools.permutations(SHAPES, 2) for r in RELATIONS]
    assert 0.15 < np.mean([relation_is_held_out(*triple) for triple in triples]) < 0.25


def test_the_same_seed_gives_the_same_captions_and_pictures():
    one, other = (draw_captions(4, held_out=False, seed=7) for _ in range(2))
    assert one == other != draw_captions(4, held_out=False, seed=8)
    assert np.array_equal(draw_pictures(one, 3), draw_pictures(one, 3))
    assert not np.array_equal(draw_pictures(one, 3), draw_pictures(one, 4))


@pytest.mark.parametrize("task", TASKS)
def test_each_figure_is_anywhere_in_a_cell_of_its_own(task):
    random = np.random.default_rng(0)
    for caption in captions(task, held_out=False)[:100]:
        asked = [request for request in caption.requests for _ in range(request.count)]
        scenes = [draw_scene(caption, random).figures for _ in range(5)]
        for figure, (left, top, side) in (pair for some in scenes for pair in zip(some, cells(asked), strict=True)):
            room = figure.radius + MARGIN
            assert left + room <= figure.x <= left + side - room and top + room <= figure.y <= top + side - room
    alone = [draw_scene(caption, random).figures[0] for _ in range(500)]
    left, top, side = cells(asked)[0]
    for place, corner in (("x", left), ("y", top)):
        found = np.array([getattr(figure, place) for figure in alone]) - corner
        assert found.mean() == pytest.approx(side / 2, abs=0.1 * side)
        assert np.ptp(found) > side - 2 * (11 + MARGIN)  # what the largest figure has, and most have more


def test_cells_lie_within_the_picture_and_apart():
    for some in (*CELLS.values(), *BESIDE.values()):
        assert all(0 <= low <= SIZE - side for left, top, side in some for low in (left, top))
        for (left, top, side), (other_left, other_top, _) in itertools.combinations(some, 2):
            assert max(abs(left - other_left), abs(top - other_top)) >= side


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_second_figure_is_where_the_relation_says_of_the_first(relation):
    first, second = BESIDE[relation]
    right, down = second[0] - first[0], second[1] - first[1]
    assert {"right of": right, "left of": -right, "below": down, "above": -down}[relation] == first[2]
    assert 0 in (right, down)


def test_each_figure_of_a_kind_has_a_color_of_its_own_where_none_is_told():
    random = np.random.default_rng(0)
    threes = [c for c in captions("counting", held_out=False) if c.requests[0].count == 3]
    colors = [{figure.color for figure in draw_scene(caption, random).figures} for caption in 5 * threes]
    assert 0.4 < np.mean([len(some) == 3 for some in colors]) < 0.7  # by chance 5/6 x 4/6 = .56


def test_captions_are_spread_evenly():
    drawn = draw_captions(30, held_out=True, seed=0)
    assert [sum(c.task == task for c in drawn) for task in TASKS] == [30] * 6
    ten = [c for c in captions("single_object", held_out=True)]
    drawn = [c for c in draw_captions(3 * len(ten), held_out=True, seed=0) if c.task == "single_object"]
    assert all(drawn.count(caption) == 3 for caption in ten)


def test_metadata_is_genevals_record():
    for caption in draw_captions(20, held_out=True, seed=0):
        record = caption.metadata()
        assert record.keys() == {"tag", "include", "exclude", "prompt"}
        assert record["tag"] in TASKS and record["prompt"] == caption.text
        for asked in record["include"]:
            assert {"class", "count"} <= asked.keys() <= {"class", "count", "color", "position"}
        assert all(barred.keys() == {"class", "count"} for barred in record["exclude"])
