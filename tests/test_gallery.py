"""Galleries: nothing is drawn twice, nothing is mixed, and a kill costs one batch."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from apexgen.drawer import open_model
from apexgen.evaluate.gallery import MANIFEST, Job, fill, read_manifest, read_picture, read_pictures

CONSOLE = Console(quiet=True)
PROMPTS = ["a photo of a red circle", "two rings"] * 3
JOBS = [Job(f"{i // 2:05}/samples/{i % 2:05}.png", prompt, 40 + i) for i, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def drawer():
    return open_model("scenes", precision="float32").drawer(1)


def marks(folder):
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.rglob("*.png")}


def test_pictures_are_the_drawers_and_say_their_prompt_and_seed(drawer, tmp_path):
    assert fill(tmp_path / "g", JOBS, drawer, CONSOLE, batch=4) == 0
    expected = drawer.draw([job.prompt for job in JOBS], [job.seed for job in JOBS])
    for job, picture in zip(JOBS, expected, strict=True):
        assert np.abs(read_picture(tmp_path / "g" / job.path) - picture).max() <= 0.5 / 255 + 1e-5
        with Image.open(tmp_path / "g" / job.path) as image:
            assert image.info["prompt"] == job.prompt and image.info["seed"] == str(job.seed)
    assert read_manifest(tmp_path / "g") == drawer.settings()
    [batch] = read_pictures([tmp_path / "g" / job.path for job in JOBS])
    assert batch.shape == expected.shape and batch.dtype == np.float32


def test_what_is_there_is_kept_and_what_is_broken_is_drawn_again(drawer, tmp_path):
    fill(tmp_path, JOBS, drawer, CONSOLE)
    before = marks(tmp_path)
    gone, torn, cut, damaged = broken = [tmp_path / JOBS[i].path for i in (1, 4, 2, 5)]
    contents = [file.read_bytes() for file in broken]
    gone.unlink()
    torn.write_bytes(b"\x89PNG torn")
    cut.write_bytes(contents[2][: len(contents[2]) // 2])
    place = contents[3].index(b"IDAT")
    damaged.write_bytes(contents[3][:place] + b"\xff\xff\xff\xff" + contents[3][place + 4 :])
    fill(tmp_path, JOBS, drawer, CONSOLE)
    after = marks(tmp_path)
    assert [file.read_bytes() for file in broken] == contents
    assert {file for file in before if before[file] != after[file]} == set(broken)


def test_another_models_settings_prompts_or_seeds_are_refused(drawer, tmp_path):
    fill(tmp_path / "a", JOBS[:1], drawer, CONSOLE)
    other = drawer.model.drawer(2)
    with pytest.raises(ValueError, match=r"holds pictures of .* give another folder"):
        fill(tmp_path / "a", JOBS, other, CONSOLE)
    for job in (Job(JOBS[0].path, "two rings", JOBS[0].seed), Job(JOBS[0].path, JOBS[0].prompt, 7)):
        with pytest.raises(ValueError, match=r"is of (prompt|seed) .* not"):
            fill(tmp_path / "a", [job], drawer, CONSOLE)
    (tmp_path / "a" / MANIFEST).unlink()
    with pytest.raises(ValueError, match=r"no manifest.json that says who drew"):
        fill(tmp_path / "a", JOBS, drawer, CONSOLE)
    (tmp_path / "a" / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="is broken"):
        fill(tmp_path / "a", JOBS, drawer, CONSOLE)
    assert len(marks(tmp_path)) == 1


def test_ranks_share_the_jobs_and_make_what_one_makes(drawer, tmp_path, monkeypatch):
    fill(tmp_path / "one", JOBS, drawer, CONSOLE)
    monkeypatch.setenv("WORLD_SIZE", "3")
    left = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        left.append(fill(tmp_path / "three", JOBS, drawer, CONSOLE))
    assert left == [4, 2, 0]
    for job in JOBS:
        one, three = (read_picture(tmp_path / name / job.path) for name in ("one", "three"))
        assert np.abs(one - three).max() <= 1 / 255


CHILD = """
import sys, time
import numpy as np
from pathlib import Path
from rich.console import Console
from apexgen.evaluate.gallery import Job, fill

class Slow:
    name = "slow@1"
    def settings(self):
        return {"drawer": self.name}
    def draw(self, prompts, seeds):
        time.sleep(float(sys.argv[2]))
        return np.stack([np.random.default_rng(seed).random((16, 16, 3), np.float32) for seed in seeds])

fill(Path(sys.argv[1]), [Job(f"{i:05}.png", "a ring", i) for i in range(200)], Slow(), Console(quiet=True), batch=4)
"""


def test_a_kill_costs_at_most_the_batch_at_hand(tmp_path):
    command, paths = [sys.executable, "-c", CHILD, str(tmp_path)], os.environ | {"PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen([*command, "0.1"], env=paths)
    while len(list(tmp_path.glob("0*.png"))) < 20 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {file: mark for file, mark in marks(tmp_path).items() if not file.name.startswith(".")}
    assert 20 <= len(before) < 200
    for file in before:
        assert read_picture(file).shape == (16, 16, 3)
    subprocess.run([*command, "0"], check=True, env=paths)
    after = marks(tmp_path)
    assert len(after) == 200 and all(after[file] == before[file] for file in before)
