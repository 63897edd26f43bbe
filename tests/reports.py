"""A run's folder in the middle of training, its previews, and scores for its report."""

import json

import numpy as np

from apexgen.report import picture_grid

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr", "overall")


def entry(score, seconds):
    return {
        "score": dict.fromkeys(TASKS, score),
        "error": dict.fromkeys(TASKS, 0.037),
        "n": 120,
        "seconds_per_image": seconds,
        "spread": {"x": 0.2, "y": 0.19, "size": 0.04, "pairwise": 0.36, "color": 0.81},
    }


def columns(names=("teacher@50", "student@1"), count=2, side=16):
    return {name: np.random.default_rng(0).random((count, side, side, 3)) for name in names}


def begun(folder, steps=3, config="[train]\nsteps = 4\nbatch = 2\n"):
    """A run's folder in the middle of training."""
    (folder / "samples").mkdir(parents=True)
    (folder / "config.toml").write_text(config)
    lines = [json.dumps({"step": step, "seconds": float(step), "kl": 1.0 / step}) for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 9, "k')
    return folder


def preview(folder, step, flat=False):
    names = ("teacher@16", "student@1", "student@2", "student@4")
    drawn = columns(names, count=4)
    if flat:
        drawn["student@1"] = np.tile(drawn["student@1"][:1], (4, 1, 1, 1))
    picture_grid(["a", "b", "c", "d"], drawn).save(folder / "samples" / f"step-{step:06d}.png")
