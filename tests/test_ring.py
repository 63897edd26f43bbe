"""What one step buys where the data has several modes (the KL form) and where it cannot (mix)."""

import pytest

from apexgen.compare.contest import judge, pretrain, train
from apexgen.compare.points import Ring
from apexgen.objectives.apex import Apex
from apexgen.objectives.progressive import Progressive


@pytest.fixture(scope="module")
def teacher():
    return pretrain(Ring(), 1500, seed=0)


def test_the_kl_form_finds_the_modes_in_one_step_and_the_mix_form_does_not(teacher):
    many = judge(Ring(), teacher, 50, renoises=False)
    assert many["distance"] < 0.15 and many["right"] > 0.8, "the teacher must know the ring"
    one = judge(Ring(), teacher, 1, renoises=False)
    assert one["distance"] > 0.9 and one["right"] < 0.05, "one step of the teacher is the conditional mean"

    kl, mix = (
        judge(Ring(), train(Apex(form=form), Ring(), teacher, 1000, seed=1), 1, renoises=False)
        for form in ("kl", "mix")
    )
    assert kl["distance"] < 0.3 and kl["right"] > 0.4
    assert mix["distance"] > 0.9 and mix["right"] < 0.05


def test_progressive_distillation_keeps_in_one_step_more_than_the_teacher_has_in_two(teacher):
    student = train(Progressive(halvings=2, stage_steps=150), Ring(), teacher, 450, seed=1)
    one, few = judge(Ring(), student, 1, renoises=False), judge(Ring(), teacher, 2, renoises=False)
    assert one["distance"] < 0.3 < few["distance"]
    assert one["right"] > 0.4 > few["right"]
