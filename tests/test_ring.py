"""What one step buys where the data has several modes (the KL form) and where it cannot (mix)."""

import pytest

from apexgen.compare.plane import Plane
from apexgen.compare.points import Ring
from apexgen.objectives.apex import Apex
from apexgen.objectives.progressive import Progressive


@pytest.fixture(scope="module")
def ring():
    return Plane(Ring(), 1500)


def test_the_kl_form_finds_the_modes_in_one_step_and_the_mix_form_does_not(ring):
    many = ring.judge(ring.teacher, 50, renoises=False)
    assert many["distance"] < 0.15 and many["right"] > 0.8, "the teacher must know the ring"
    one = ring.judge(ring.teacher, 1, renoises=False)
    assert one["distance"] > 0.9 and one["right"] < 0.05, "one step of the teacher is the conditional mean"

    kl, mix = (
        ring.judge(ring.train(form, Apex(form=form), steps, 1, lambda step, average: None), 1, renoises=False)
        for form, steps in (("kl", 300), ("mix", 100))
    )
    assert kl["distance"] < 0.3 and kl["right"] > 0.25
    assert mix["distance"] > 0.9 and mix["right"] < 0.05


def test_progressive_distillation_keeps_in_one_step_more_than_the_teacher_has_in_two(ring):
    student = ring.train("", Progressive(halvings=2, stage_steps=150), 450, 1, lambda step, average: None)
    one, few = ring.judge(student, 1, renoises=False), ring.judge(ring.teacher, 2, renoises=False)
    assert one["distance"] < 0.3 < few["distance"]
    assert one["right"] > 0.4 > few["right"]
