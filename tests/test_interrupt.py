"""A run asked to stop finishes its step, saves and says how to go on; asked twice, it stops at once. Real signals."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from forks import start
from kills import STEPS, last_weights, write_run

from apexgen.backbones.header import read_header
from together import begin, command, end


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that nothing stops."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    process = start(folder.with_name("log"), "train", write_run(folder))
    process.join()
    assert process.exitcode == 0
    return folder


def wait_for_steps(process, folder, count):
    metrics = folder / "run" / "metrics.jsonl"
    while process.is_alive() and (not metrics.is_file() or metrics.read_text().count("\n") < count):
        time.sleep(0.005)


def saved_steps(folder):
    return sorted(int(path.name[5:13]) for path in (folder / "run" / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_ends_with_the_same_weights(tmp_path, alone, number):
    folder, log = tmp_path / "stopped", tmp_path / "log"
    file = write_run(folder)
    process = start(log, "train", file, "train.save_every=1000")
    wait_for_steps(process, folder, 2)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 0
    [step] = saved_steps(folder)
    assert 2 <= step < STEPS
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == step  # every step taken is saved
    said = log.read_text().splitlines()[-1]
    assert said == f"stopped after step {step} of {STEPS}, saved; the same command goes on from it"
    again = start(log, "train", file, "train.save_every=1000")
    again.join()
    assert again.exitcode == 0 and f"going on from step {step}" in log.read_text()
    assert last_weights(folder) == last_weights(alone)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(tmp_path, number):
    folder = tmp_path / "stopped"
    process = start(tmp_path / "log", "train", write_run(folder), "train.save_every=1000", "train.steps=100000")
    wait_for_steps(process, folder, 1)
    while process.is_alive() and not saved_steps(folder):
        with suppress(ProcessLookupError):  # it may be gone since it was asked
            os.kill(process.pid, number)
        time.sleep(0.02)  # within the step in hand
    process.join()
    assert process.exitcode == -number
    assert saved_steps(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_encoding_keeps_what_is_encoded(tmp_path, number):
    prompts, cache = tmp_path / "prompts.txt", tmp_path / "cache"
    prompts.write_text("\n".join(f"a photo of {count} rings" for count in range(4000)))
    settings = [write_run(tmp_path / "run"), f"data.source={prompts}", "data.limit=4000", f"data.cache={cache}"]
    process = start(tmp_path / "log", "train", *settings)
    while process.is_alive() and not any(cache.glob("texts-*/*.safetensors")):
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 0
    line = "stopped while encoding; what is encoded is kept, and the same command goes on from it"
    assert (tmp_path / "log").read_text().splitlines()[-1] == line
    kept = sum(len(read_header(file).tensors) // 2 for file in cache.glob("texts-*/*.safetensors"))
    assert 1024 <= kept < 4000
    again = start(tmp_path / "log", "encode", *settings)
    again.join()
    assert f"captions: {4000 - kept:,} encoded, {kept:,} reused" in (tmp_path / "log").read_text()


def notes_signals(process):
    """Whether a process has a handler of its own for SIGTERM."""
    caught = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_signal_while_encoding_in_memory_says_what_would_keep_it(tmp_path):
    folder, prompts = tmp_path / "run", tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a photo of {count} rings" for count in range(100_000)))
    arguments = ("train", write_run(folder), f"data.source={prompts}", "data.limit=100000")
    processes = begin(tmp_path / "log", command, *arguments)
    for process in processes:
        while not notes_signals(process):
            time.sleep(0.01)
    for process in processes:
        os.kill(process.pid, signal.SIGTERM)
    assert end(processes) == [0, 0]
    for rank in (0, 1):
        assert "write data.cache = " in (tmp_path / f"log-{rank}").read_text().splitlines()[-1]
