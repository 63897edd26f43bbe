"""GenEval's rules on recorded detections with known answers: every task, tie and edge."""

from dataclasses import dataclass

import numpy as np
import pytest

from apexgen.rules import TASKS, faults, prompts_solved, relations, standard_errors, summarize


@dataclass(frozen=True)
class Seen:
    box: tuple
    color: str = "red"


def at(x, y, width=20, height=20, color="red"):
    return Seen((x - width / 2, y - height / 2, x + width / 2, y + height / 2), color)


def asked(name, count=1, **more):
    return {"class": name, "count": count} | more


def wrong(found, include=(), exclude=()):
    record = {"tag": "any", "prompt": "any", "include": list(include), "exclude": list(exclude)}
    return faults(found, record, lambda _, things: [thing.color for thing in things])


def direction(subject, landmark):
    """The rule as the paper has it, a line an axis."""
    answers = set()
    (ax, ay), (bx, by) = [((s[0] + s[2]) / 2, (s[1] + s[3]) / 2) for s in (subject, landmark)]
    length = np.hypot(ax - bx, ay - by)
    for gap, low, high, names in ((ax - bx, 0, 2, ("left of", "right of")), (ay - by, 1, 3, ("above", "below"))):
        slack = 0.1 * (subject[high] - subject[low] + landmark[high] - landmark[low])
        share = max(abs(gap) - slack, 0) / length if length else 0
        if share > 0.5:
            answers.add(names[int(gap > 0)])
    return answers


def test_relations_are_genevals():
    random = np.random.default_rng(0)
    for _ in range(2000):
        a, b = (at(*random.uniform(100, 900, 2), *random.uniform(20, 400, 2)).box for _ in range(2))
        assert set(relations(a, b)) == direction(a, b)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (20, 50, ["left of"]),
        (80, 50, ["right of"]),
        (50, 20, ["above"]),
        (50, 80, ["below"]),
        (20, 20, ["left of", "above"]),
        (50, 50, []),  # equal centres
        (53, 50, []),  # within the slack, 4
        (54, 50, []),  # at it
        (58, 50, []),  # direction 4 / 8: a half is not more than a half
        (58.5, 50, ["right of"]),
        (20, 40, ["left of"]),
    ],
)
def test_relations_of_hand_made_boxes(x, y, expected):
    assert relations(at(x, y).box, at(50, 50).box) == expected


RECORDS = {
    "single_object": ([asked("dog")], {"dog": [at(5, 5)]}, {"cat": [at(5, 5)]}, "expected dog>=1, found 0"),
    "two_object": (
        [asked("dog"), asked("cat")],
        {"dog": [at(5, 5)], "cat": [at(5, 5)]},
        {"dog": [at(5, 5), at(9, 9)]},
        "expected cat>=1, found 0",
    ),
    "counting": ([asked("dog", 2)], {"dog": [at(5, 5)] * 2}, {"dog": [at(5, 5)]}, "expected dog>=2, found 1"),
    "colors": (
        [asked("dog", color="blue")],
        {"dog": [at(5, 5, color="blue"), at(5, 5)]},
        {"dog": [at(5, 5), at(5, 5, color="blue")]},  # the surest alone is looked at
        "expected blue dog>=1, found 0 blue; and 1 red",
    ),
    "position": (
        [asked("dog"), asked("cat", position=["above", 0])],
        {"dog": [at(50, 70)], "cat": [at(50, 20)]},
        {"dog": [at(50, 20)], "cat": [at(20, 90)]},
        "expected cat above target, found below target",
    ),
    "color_attr": (
        [asked("dog", color="red"), asked("cat", color="blue")],
        {"dog": [at(5, 5)], "cat": [at(9, 9, color="blue")]},
        {"dog": [at(5, 5, color="blue")], "cat": [at(9, 9, color="red")]},
        "expected red dog>=1, found 0 red; and 1 blue",
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_judged_by_its_rule_and_says_why(task):
    include, right, false, reason = RECORDS[task]
    assert wrong(right, include) == []
    assert wrong(false, include)[0] == reason
    assert len(wrong({}, include)) == len(include)


def test_what_is_excluded_may_not_be_there():
    counts = {"include": [asked("dog", 2)], "exclude": [asked("dog", 3), asked("cat", 1)]}
    assert wrong({"dog": [at(5, 5)] * 2, "cow": [at(1, 1)]}, **counts) == []
    assert wrong({"dog": [at(5, 5)] * 3}, **counts) == ["expected dog<3, found 3"]
    assert wrong({"dog": [at(5, 5)] * 2, "cat": [at(1, 1)]}, **counts) == ["expected cat<1, found 1"]
    assert wrong({"dog": [at(5, 5)]}, **counts) == ["expected dog>=2, found 1"]


def test_more_than_asked_for_is_right_where_nothing_is_excluded():
    assert wrong({"dog": [at(5, 5)] * 9}, [asked("dog")]) == []


def test_one_thing_may_not_have_both_colors():
    both = [asked("dog", color="red"), asked("dog", color="blue")]
    assert wrong({"dog": [at(5, 5)]}, both) == ["expected blue dog>=1, found 0 blue; and 1 red"]
    assert wrong({"dog": [at(5, 5), at(9, 9, color="blue")]}, both) != []  # the official clauses look at the same one


def test_a_color_of_several_needs_all_of_them():
    include = [asked("dog", 2, color="red")]
    assert wrong({"dog": [at(5, 5)] * 2}, include) == []
    mixed = {"dog": [at(5, 5), at(5, 5, color="pink")]}
    assert wrong(mixed, include) == ["expected red dog>=2, found 1 red; and 1 red, 1 pink"]


def test_a_position_holds_for_every_pair_and_needs_its_target():
    include = [asked("dog", 2), asked("cat", position=["left of", 0])]
    assert wrong({"dog": [at(70, 50), at(90, 50)], "cat": [at(20, 50)]}, include) == []
    one_off = wrong({"dog": [at(70, 50), at(5, 50)], "cat": [at(40, 50)]}, include)
    assert one_off == ["expected cat left of target, found right of target"]
    assert wrong({"dog": [at(70, 50)], "cat": [at(20, 50)]}, include) == [
        "expected dog>=2, found 1",
        "no target for cat to be left of",
    ]
    nowhere = wrong({"dog": [at(50, 50), at(50, 50)], "cat": [at(50, 50)]}, include)
    assert nowhere == ["expected cat left of target, found  target"]  # official too: no relation, two blanks


def test_a_wrong_color_spares_the_place():
    include = [asked("dog"), asked("cat", color="blue", position=["above", 0])]
    assert len(wrong({"dog": [at(50, 20)], "cat": [at(50, 70)]}, include)) == 1


RECORDS_OF_SEVEN = [{"tag": "colors", "prompt": p} for p in "aabb"] + [
    {"tag": "counting", "prompt": "c"},
    {"tag": "counting", "prompt": "d"},
    {"tag": "position", "prompt": "e"},
]
CORRECT = [True, True, True, False, True, False, False]


def test_overall_is_the_unweighted_mean_of_the_tasks():
    summary = summarize(RECORDS_OF_SEVEN, CORRECT)
    assert summary == {"counting": 0.5, "colors": 0.75, "position": 0.0, "overall": pytest.approx(1.25 / 3)}


def test_a_prompt_is_solved_by_any_of_its_pictures():
    assert prompts_solved(RECORDS_OF_SEVEN, CORRECT) == 3 / 5


def test_errors_are_of_prompts_and_absent_where_there_is_but_one():
    errors = standard_errors(RECORDS_OF_SEVEN, CORRECT)
    assert errors == {"colors": pytest.approx(0.25), "counting": pytest.approx(0.5)}
    whole = standard_errors(RECORDS_OF_SEVEN[:6], CORRECT[:6])
    assert whole["overall"] == pytest.approx(np.hypot(0.25, 0.5) / 2)
    again = [RECORDS_OF_SEVEN[0]] * 100 + [RECORDS_OF_SEVEN[2]]
    few = standard_errors(again, [True] * 100 + [False])
    assert few["colors"] == pytest.approx(0.5)  # a hundred copies are no hundred prompts
