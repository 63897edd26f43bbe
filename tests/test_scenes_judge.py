"""The embedded world's judge is exact, graceful and never fooled; spread and variety are those of the figures."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from apexgen.scenes.draw import draw_pictures
from apexgen.scenes.prompts import (
    OTHER,
    TASKS,
    draw_captions,
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
