"""Killed again and again, while it saves too, a run ends with the weights of a run left alone; benchmarks/kills.py."""

import pytest
from kills import endure


@pytest.mark.parametrize("pictures", [False, True])
def test_runs_killed_at_random_moments_end_with_the_same_weights(tmp_path, pictures):
    """Of prompts, and of pictures that are read at the step and in part can't be."""
    assert endure(tmp_path, kills=4, seed=0, pictures=pictures)["kills"] == 4
