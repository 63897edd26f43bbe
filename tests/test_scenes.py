"""The embedded world: what is held out stays out, and the judge is exact, graceful and never fooled."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from apexgen.rules import RELATIONS
from apexgen.scenes.draw import BESIDE, CELLS, MARGIN, cells, draw_pictures, draw_scene
from apexgen.scenes.prompts import (
    OTHER,
    TASKS,
    captions,
    color_is_held_out,
    count_is_held_out,
    draw_captions,
    pair_is_held_out,
    relation_is_held_out,
)
from apexgen.scenes.score import Found, is_correct, parse, score
from apexgen.scenes.spread import color_variety, spread
from apexgen.scenes.world import COLORS, SHAPES, SIZE, Figure, Scene, render

DARK = (0.1, 0.1, 0.1)


@pytest.fixture(scope="module")
def held_out():
    drawn = draw_captions(50, held_out=True, seed=11)
    return draw_pictures(drawn, seed=5), [caption.metadata() for caption in drawn]


def overall(pictures, records):
    return score(np.asarray(pictures), records)["overall"]


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


def test_true_pictures_are_right_and_shuffled_captions_wrong(held_out):
    pictures, records = held_out
    assert overall(pictures, records) >= 0.98
    order = np.random.default_rng(0).permutation(len(records))
    assert overall(pictures[order], records) <= 0.12


def test_the_score_falls_gracefully_under_blur(held_out):
    pictures, records = held_out
    blurred = [ndimage.gaussian_filter(pictures, (0, px, px, 0)) for px in (0.5, 1, 1.5, 2, 3)]
    scores = [overall(some, records) for some in blurred]
    assert all(after <= before + 0.01 for before, after in itertools.pairwise(scores))
    assert scores[1] >= 0.93 and 0.5 < scores[2] < 0.95 and 0.2 < scores[3] < 0.7


def test_the_score_falls_gracefully_under_noise(held_out):
    pictures, records = held_out
    noise = np.random.default_rng(0).normal(size=pictures.shape)
    noisy = [np.clip(pictures + deviation * noise, 0, 1) for deviation in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)]
    scores = [overall(some, records) for some in noisy]
    assert all(after <= before + 0.01 for before, after in itertools.pairwise(scores))
    assert scores[1] >= 0.97 and scores[2] >= 0.8 and 0.4 < scores[3] < 0.9 and scores[5] < 0.3


ODD = {
    "nothing": np.zeros(0),
    "no rows": np.zeros((0, 64, 3)),
    "no channels": np.zeros((64, 64, 0)),
    "nan": np.full((64, 64, 3), np.nan),
    "inf": np.full((64, 64, 3), np.inf),
    "-inf": np.full((64, 64, 3), -np.inf),
    "one axis": np.zeros(100),
    "a number": np.array(3.0),
    "grey": np.random.default_rng(0).random((64, 64)),
    "one channel": np.random.default_rng(0).random((64, 64, 1)),
    "two channels": np.random.default_rng(0).random((64, 64, 2)),
    "rgba": np.random.default_rng(0).random((64, 64, 4)),
    "a batch": np.zeros((2, 64, 64, 3)),
    "bytes": np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
    "signed": np.random.default_rng(0).integers(-(2**62), 2**62, (64, 64, 3)),
    "bool": np.random.default_rng(0).random((64, 64, 3)) > 0.5,
    "half": np.random.default_rng(0).random((64, 64, 3)).astype(np.float16),
    "complex": np.zeros((64, 64, 3), complex),
    "words": np.full((64, 64, 3), "a"),
    "objects": np.full((64, 64, 3), None),
    "one pixel": np.ones((1, 1, 3)),
    "thin": np.random.default_rng(0).random((1, 500, 3)),
    "long": np.random.default_rng(0).random((8, 300, 3)),
    "huge": np.full((64, 64, 3), 1e300),
    "negative": np.full((64, 64, 3), -1e300),
    "large": np.full((1024, 1024, 3), 0.5, np.float32),
    "random": np.random.default_rng(0).random((64, 64, 3)),
    "read only": np.broadcast_to(np.float32(0.5), (64, 64, 3)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("picture", ODD.values(), ids=ODD)
def test_no_array_breaks_the_judge(picture):
    assert all(isinstance(figure, Found) for figure in parse(picture))


@pytest.mark.parametrize("name", ["nan", "huge", "large", "bool", "random"])
def test_what_holds_no_figure_is_not_taken_for_one(name):
    assert all(figure.shape == OTHER for figure in parse(ODD[name]))


def test_a_known_scene_is_read_back():
    random = np.random.default_rng(2)
    for shape, color in itertools.product(SHAPES, COLORS):
        radius, (x, y) = random.uniform(7, 11), random.uniform(14, 50, 2)
        scene = Scene((Figure(shape, color, x, y, radius),), DARK, ((0.0, 0.0, 0.0),))
        (found,) = parse(render(scene))
        assert (found.shape, found.color) == (shape, color)
        assert np.abs(np.array(found.center) * SIZE - (x, y)).max() <= 1
        reach = {"square": 1.76, "triangle": 1.8}.get(shape, 2.0) * radius
        assert abs(found.extent[1] * SIZE - reach) <= 2


@pytest.mark.parametrize("size", [64, 128, 256])
def test_bytes_floats_alpha_and_sizes_read_alike(size):
    scene = Scene((Figure("ring", "blue", 20, 40, 9), Figure("cross", "white", 45, 15, 8)), DARK, ((0.0,) * 3,) * 2)
    picture = render(scene, size)
    whole = (picture * 255).round().astype(np.uint8)
    alpha = np.concatenate([picture, np.ones((size, size, 1), np.float32)], axis=2)
    for other in (picture, whole, alpha, picture.astype(np.float64)):
        assert {(f.shape, f.color) for f in parse(other)} == {("ring", "blue"), ("cross", "white")}


def test_the_judge_leaves_the_picture_alone():
    picture = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    copy = picture.copy()
    parse(picture)
    assert np.array_equal(picture, copy)


def at(x, y, width=0.2, height=0.2, shape="circle", color="red"):
    return Found(shape, color, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def asked(shape, count=1, **more):
    return {"class": shape, "count": count} | more


RECORDS = {
    "single_object": ([asked("circle")], [at(0.5, 0.5)], [at(0.5, 0.5, shape="ring")]),
    "two_object": (
        [asked("circle"), asked("ring")],
        [at(0.2, 0.2), at(0.7, 0.7, shape="ring")],
        [at(0.2, 0.2), at(0.7, 0.7)],
    ),
    "counting": ([asked("circle", 2)], [at(0.2, 0.2), at(0.7, 0.7)], [at(0.2, 0.2)]),
    "colors": ([asked("circle", color="red")], [at(0.5, 0.5)], [at(0.5, 0.5, color="blue")]),
    "position": (
        [asked("circle"), asked("ring", position=["above", 0])],
        [at(0.5, 0.7), at(0.5, 0.2, shape="ring")],
        [at(0.5, 0.2), at(0.5, 0.7, shape="ring")],
    ),
    "color_attr": (
        [asked("circle", color="red"), asked("ring", color="blue")],
        [at(0.2, 0.2), at(0.7, 0.7, shape="ring", color="blue")],
        [at(0.2, 0.2, color="blue"), at(0.7, 0.7, shape="ring")],
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_judged_by_its_rule(task):
    include, right, wrong = RECORDS[task]
    assert is_correct(right, {"include": include})
    assert is_correct(right[::-1], {"include": include})
    assert not is_correct(wrong, {"include": include})
    assert not is_correct([], {"include": include})


def test_what_is_excluded_may_not_be_there():
    record = {"include": [asked("circle", 2)], "exclude": [asked("circle", 3), asked("ring", 1)]}
    two = [at(0.2, 0.2), at(0.7, 0.7)]
    assert is_correct(two, record)
    assert is_correct([*two, at(0.2, 0.7, shape="cross")], record)
    assert not is_correct([*two, at(0.2, 0.7)], record)
    assert not is_correct([*two, at(0.2, 0.7, shape="ring")], record)


def test_a_collapsed_generator_has_no_spread_within_a_prompt():
    places = {"a circle": (0.2, 0.3), "a ring": (0.8, 0.6)}
    prompts = list(places) * 5
    collapsed = spread([[at(*places[prompt])] for prompt in prompts], prompts)
    assert collapsed["pairwise"] == pytest.approx(0) and collapsed["x"] == pytest.approx(0.3)
    assert collapsed["size"] == pytest.approx(0)


def test_spread_is_that_of_the_figures():
    random = np.random.default_rng(0)
    found = [[at(random.normal(0.5, 0.1), random.normal(0.5, 0.05))] for _ in range(800)]
    measured = spread([*found, [], [at(9, 9), at(-9, 9)]])
    assert measured["x"] == pytest.approx(0.1, rel=0.1) and measured["y"] == pytest.approx(0.05, rel=0.1)
    assert spread([]) == {"x": 0.0, "y": 0.0, "size": 0.0, "pairwise": 0.0}


def test_color_variety_counts_pairs_of_pictures_that_differ():
    one_of_each = [[at(0.5, 0.5, color=color)] for color in COLORS]
    assert color_variety(one_of_each) == 1.0
    assert color_variety([one_of_each[0]] * 5) == 0.0
    assert color_variety([*one_of_each[:2], one_of_each[0], []]) == pytest.approx(2 / 3)  # of three pairs, one is equal
    assert color_variety(one_of_each * 200) == pytest.approx(5 / 6, abs=1e-3)
    assert color_variety([]) == color_variety([[], one_of_each[0]]) == 0.0
