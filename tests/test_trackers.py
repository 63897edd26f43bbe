"""What trackers are told, read back from the files they write; resumed, failing, missing."""

import json
import sqlite3
import subprocess
import sys

import pytest

from apexgen import trackers
from apexgen.config import load_run
from apexgen.refuse import check_run
from apexgen.trackers import Tracker, Trackers, check_trackers, identity


def run_with(folder, *names):
    return load_run(None, [f"folder={folder}", f"train.track={json.dumps(names)}"])


def told_by(names, folder, steps, began=0, tell=pytest.fail):
    run = run_with(folder, *names)
    opened = Trackers(run.train.track, run, folder, began, tell)
    for step in steps:
        opened.log(step, {"fake": step / 2, "records": [1, 2], "one_step_score": 0.5 * step})
    opened.close()


def test_tensorboard_has_every_number_once_also_where_steps_are_taken_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told_by(["tensorboard"], tmp_path, range(1, 5))
    told_by(["tensorboard"], tmp_path, range(3, 7), began=2)
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"fake", "one_step_score"}
    assert [(event.step, event.value) for event in read.Scalars("fake")] == [(step, step / 2) for step in range(1, 7)]


SCRIPT = """
import sys
from pathlib import Path
from test_trackers import told_by
told_by([sys.argv[1]], Path(sys.argv[2]), range(1, 4))
told_by([sys.argv[1]], Path(sys.argv[2]), range(4, 6), began=3)
"""


def in_a_process(name, folder, **environment):
    """A process of its own: both read the environment as they are imported, and leave threads behind."""
    folder.mkdir()
    paths = ":".join(path for path in sys.path if path)
    environment = {"PATH": "/usr/bin", "HOME": str(folder), "PYTHONPATH": paths} | environment
    command = [sys.executable, "-c", SCRIPT, name, str(folder)]
    subprocess.run(command, check=True, env=environment, cwd=folder, capture_output=True, timeout=100)


def test_trackio_goes_on_with_the_same_series(tmp_path):
    in_a_process("trackio", tmp_path / "run", TRACKIO_DIR=str(tmp_path / "all"))
    [file] = (tmp_path / "all").glob("*.db")
    with sqlite3.connect(file) as opened:
        rows = opened.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert {row[0] for row in rows} == {f"run-{identity(tmp_path / 'run')}"}
    assert [(step, json.loads(numbers)["fake"]) for _, step, numbers in rows] == [(s, s / 2) for s in range(1, 6)]


def wandb_history(file):
    """The steps and numbers of an offline run: LevelDB's log format behind seven bytes, one block long here."""
    from wandb.proto import wandb_internal_pb2

    content, place = file.read_bytes(), 7
    while place < len(content):
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content[place + 7 : place + 7 + length])
        place += 7 + length
        if record.WhichOneof("record_type") == "history":
            items = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
            yield record.history.step.num, items


def test_wandb_writes_offline_under_one_id(tmp_path):
    in_a_process("wandb", tmp_path / "run")
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [file.stem for file in files] == [f"run-{identity(tmp_path / 'run')}"] * 2
    read = [pair for file in files for pair in wandb_history(file)]
    assert [(step, items["fake"]) for step, items in read] == [(step, step / 2) for step in range(1, 6)]
    assert not list((tmp_path / "run" / "wandb").glob("run-*")), "only an online run is named so"


def test_one_that_fails_is_told_of_once_and_the_others_go_on(tmp_path, monkeypatch):
    def failing(step, numbers):
        if step == 2:
            raise RuntimeError("the disk\nis full")

    kept, told = [], []
    monkeypatch.setitem(trackers.OPENERS, "wandb", lambda *_: Tracker(failing, lambda: pytest.fail("it had failed")))
    monkeypatch.setitem(trackers.OPENERS, "trackio", lambda *_: Tracker(lambda step, _: kept.append(step), list))
    monkeypatch.setitem(trackers.OPENERS, "tensorboard", lambda *_: 1 / 0)
    told_by(["tensorboard", "wandb", "trackio"], tmp_path, range(4), tell=told.append)
    assert kept == [0, 1, 2, 3]
    assert told == [
        "tensorboard failed and is left out: division by zero",
        "wandb failed and is left out: the disk",
    ]


def test_a_missing_package_is_one_line_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r'needs no_such; write: pip install "apexgen\[track\]"$'):
        check_trackers(["no_such"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r'^train\.track = \["wandb"\] needs wandb'):
        check_run(run_with(tmp_path / "run", "wandb"))
    assert not (tmp_path / "run").exists()


def test_nothing_is_opened_unasked(tmp_path):
    told_by([], tmp_path, range(2))
    assert list(tmp_path.iterdir()) == []
