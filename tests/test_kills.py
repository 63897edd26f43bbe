"""Killed again and again, while it saves too, a run ends with the weights of a run left alone; benchmarks/kills.py."""

from kills import endure


def test_runs_killed_at_random_moments_end_with_the_same_weights(tmp_path):
    assert endure(tmp_path, kills=6, seed=0)["kills"] == 6
