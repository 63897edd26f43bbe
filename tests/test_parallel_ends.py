"""Processes that train together end alike: what stops one ends both, is saved and said once, and nobody waits."""

import os
import signal
import time
from dataclasses import replace

import torch

from apexgen import checkpoint, distill
from together import SHORT, begin, command, end, logs_of, metrics, run_file


def test_a_signal_to_one_process_saves_once_and_ends_both(tmp_path):
    folder = tmp_path / "run"
    arguments = run_file(tmp_path, *SHORT, "train.steps=100000", "train.save_every=100000")
    processes = begin(tmp_path / "log", command, *arguments)
    while all(process.is_alive() for process in processes) and not (
        (folder / "metrics.jsonl").is_file() and (folder / "metrics.jsonl").read_text()
    ):
        time.sleep(0.02)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert end(processes) == [0, 0], logs_of(tmp_path)
    [path] = checkpoint.checkpoints(folder / "checkpoints")
    assert int(path.name[5:]) == metrics(tmp_path)[-1]["step"] == len(metrics(tmp_path))
    assert f"stopped after step {int(path.name[5:])} of 100000, saved" in (tmp_path / "log-0").read_text()


def command_on_poison(*arguments: str) -> None:
    """A command that finds something not finite in the rows of the second process only."""
    honest = distill.encode

    def poisoned(*given):
        corpus = honest(*given)
        record = corpus.records(1, 2, seed=1)[1]
        stored = corpus.conditions.select(torch.arange(len(corpus.prompts)))  # wherever they are
        embeds = stored.embeds.clone()
        embeds[corpus.rows[record]] = float("nan")
        return replace(corpus, conditions=replace(stored, embeds=embeds))

    distill.encode = poisoned
    command(*arguments)


def test_what_is_not_finite_in_one_process_stops_both(tmp_path):
    arguments = run_file(tmp_path, *SHORT, "train.save_every=1")
    assert end(begin(tmp_path / "log", command_on_poison, *arguments)) == [1, 1], logs_of(tmp_path)
    assert "step 1: " in (tmp_path / "log-0").read_text() and "not finite" in (tmp_path / "log-0").read_text()
    assert "not finite" not in (tmp_path / "log-1").read_text()  # said once
    assert len(metrics(tmp_path)) == 1
    assert [path.name for path in checkpoint.checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000001"]


def test_where_the_first_can_not_save_nobody_waits(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("a file in the way")
    assert end(begin(tmp_path / "log", command, *run_file(tmp_path, *SHORT))) == [2, 1], logs_of(tmp_path)
    assert "checkpoints" in (tmp_path / "log-0").read_text()
