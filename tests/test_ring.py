"""What one step buys where the data has several modes (the KL form) and where it cannot (mix)."""

import pytest
import torch

from apexgen.objectives.apex import Apex
from apexgen.objectives.flow_matching import FlowMatching
from ring import MLP, judge, train


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return train(FlowMatching(), MLP(), steps=1500, seed=0)


def test_the_kl_form_finds_the_modes_in_one_step_and_the_mix_form_does_not(teacher):
    distance, near = judge(teacher, steps=50)
    assert distance < 0.15 and near > 0.8, "the teacher must know the ring"
    distance, near = judge(teacher, steps=1)
    assert distance > 0.9 and near < 0.05, "one step of the teacher is the conditional mean"

    kl = train(Apex(form="kl"), teacher, steps=1000, seed=1)
    mix = train(Apex(form="mix"), teacher, steps=1000, seed=1)
    (kl_distance, kl_near), (mix_distance, mix_near) = judge(kl, 1), judge(mix, 1)
    assert kl_distance < 0.3 and kl_near > 0.4
    assert mix_distance > 0.9 and mix_near < 0.05
