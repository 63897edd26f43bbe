"""A checkpoint is whole or absent, whatever stops the writer; what is damaged is named and passed over."""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from forks import CONTEXT

from apexgen.checkpoint import ASIDE, BEST, MANIFEST, State, checkpoints, find, load, load_latest, save


def state(step, size=8):
    weights = {"a": torch.randn(size, size), "b": torch.randn(size).bfloat16()}
    average = {name: tensor + 1 for name, tensor in weights.items()}
    parameter = torch.nn.Parameter(torch.randn(size))
    optimizer = torch.optim.AdamW([parameter])
    parameter.square().sum().backward()
    optimizer.step()
    return State(step, weights, average, optimizer.state_dict())


def same(one, other):
    """Bitwise equality of nested tables."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back_bitwise(tmp_path):
    saved = state(7)
    path = save(tmp_path, saved, "seed = 3\n", keep=2)
    assert same(vars(load(path)), vars(saved))
    assert same(vars(load_latest(tmp_path, pytest.fail)), vars(saved))
    assert (path / "config.toml").read_text() == "seed = 3\n"


def test_a_transposed_weight_is_saved_as_it_reads(tmp_path):
    turned = torch.arange(6.0).reshape(2, 3).T
    path = save(tmp_path, State(1, {"a": turned}, {"a": turned}, {}), "", keep=1)
    assert torch.equal(load(path).weights["a"], turned)


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 5, 10, 20, 100):
        save(tmp_path, state(step), "", keep=3)
    assert names(tmp_path) == ["step-00000010", "step-00000020", "step-00000100"]


def test_what_was_just_saved_is_kept_although_later_ones_are_broken(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, state(step), "", keep=3)
    for step in (20, 30):
        (tmp_path / f"step-{step:08d}" / "optimizer.pt").unlink()
    saved = state(15)
    save(tmp_path, saved, "", keep=1)
    assert same(vars(load_latest(tmp_path, lambda line: None)), vars(saved))


def test_there_is_nothing_to_load_in_a_new_run(tmp_path):
    assert load_latest(tmp_path / "none", pytest.fail) is None


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, os.unlink])
@pytest.mark.parametrize(
    "file", ["student.safetensors", "average.safetensors", "optimizer.pt", "config.toml", MANIFEST]
)
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_used(tmp_path, file, damage):
    before = state(1)
    save(tmp_path, before, "steps = 2\n", keep=2)
    broken = save(tmp_path, state(2), "steps = 2\n", keep=2)
    if file == MANIFEST and damage is flip_a_bit:
        pytest.skip("a manifest with another digest is the case of a changed file")
    damage(broken / file)
    lines = []
    assert same(vars(load_latest(tmp_path, lines.append)), vars(before))
    assert len(lines) == 1 and broken.name in lines[0] and file in lines[0] and "\n" not in lines[0]
    with pytest.raises(ValueError, match="is broken"):
        load(broken)


@pytest.mark.parametrize("manifest", ["", "[]", "null", "{}", '{"../x": 1', "5"])
def test_any_manifest_that_lists_nothing_is_a_fault(tmp_path, manifest):
    path = save(tmp_path, state(1), "", keep=1)
    (path / MANIFEST).write_text(manifest)
    with pytest.raises(ValueError, match="no readable manifest"):
        load(path)


@pytest.mark.parametrize("file", ["student.safetensors", "average.safetensors", "optimizer.pt"])
def test_a_manifest_that_leaves_a_file_out_is_a_fault(tmp_path, file):
    path = save(tmp_path, state(1), "", keep=1)
    listed = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({name: digest for name, digest in listed.items() if name != file}))
    with pytest.raises(ValueError, match=f"does not list {file}"):
        load(path)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_no_code_in_a_checkpoint_is_run(tmp_path, monkeypatch):
    from apexgen import checkpoint

    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "run", state(1), "", keep=1)
    torch.save({"optimizer": Evil(), "step": 1}, path / "optimizer.pt")
    (path / MANIFEST).unlink()
    checkpoint._write_manifest(path)
    with pytest.raises(pickle.UnpicklingError):
        load(path)
    assert not (tmp_path / "executed").exists()


SAVE_FOREVER = """
import sys, torch
from pathlib import Path
from apexgen.checkpoint import State, save
tensors = {"a": torch.randn(256, 256)}
for step in range(1, 10_000):
    save(Path(sys.argv[1]), State(step, tensors, tensors, {}), "seed = 0", keep=2)
    print(step, flush=True)
"""


def test_a_kill_in_the_middle_leaves_the_previous_checkpoint_whole(tmp_path):
    command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(3):
            done = int(writer.stdout.readline())
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not list((tmp_path / "run").glob(".partial-*/*")):
            time.sleep(0.0005)  # the writer is between two saves
        os.kill(writer.pid, signal.SIGKILL)
        done = int((writer.stdout.read().split() or [done])[-1])
    assert 1 <= len(checkpoints(tmp_path / "run")) <= 3
    loaded = load_latest(tmp_path / "run", pytest.fail)
    assert loaded.step in (done, done + 1)  # killed before or after a rename; never less than was reported
    assert loaded.weights["a"].shape == (256, 256)
    save(tmp_path / "run", state(20_000), "", keep=1)
    assert names(tmp_path / "run") == ["step-00020000"]


def rewrite_forever(folder):
    torch.set_num_threads(1)
    tensors = {"a": torch.randn(64, 64)}
    while True:
        save(folder, State(7, tensors, tensors, {}), "seed = 0", keep=1)


def test_a_kill_while_a_step_is_saved_anew_leaves_a_whole_one(tmp_path):
    save(tmp_path, state(7), "", keep=1)
    chance, halfway = random.Random(0), 0
    for _ in range(12):
        writer = CONTEXT.Process(target=rewrite_forever, args=(tmp_path,), daemon=True)
        writer.start()
        before = set(tmp_path.iterdir())
        while writer.is_alive() and set(tmp_path.iterdir()) == before:
            time.sleep(0.0005)  # until it writes
        writer.join(chance.uniform(0, 0.03))
        writer.kill()
        writer.join()
        halfway += names(tmp_path) != ["step-00000007"]
        assert load_latest(tmp_path, pytest.fail).step == 7
    assert halfway > 0
    save(tmp_path, state(7), "", keep=1)
    assert names(tmp_path) == ["step-00000007"]


def test_what_stepped_aside_is_used_until_another_takes_its_place(tmp_path):
    first, second, third = state(3), state(3), state(3)
    target = save(tmp_path, first, "", keep=1)
    aside = target.rename(tmp_path / f"{target.name}{ASIDE}")  # killed between the two renames
    assert same(vars(load_latest(tmp_path, pytest.fail)), vars(first))
    kept = shutil.copytree(aside, tmp_path / "copy")
    save(tmp_path, second, "", keep=1)
    assert names(tmp_path) == ["copy", target.name]
    kept.rename(aside)  # killed before what stepped aside was removed
    assert same(vars(load_latest(tmp_path, pytest.fail)), vars(second))
    (target / "optimizer.pt").unlink()
    assert same(vars(load_latest(tmp_path, lambda line: None)), vars(first))
    save(tmp_path, third, "", keep=1)
    assert names(tmp_path) == [target.name]
    assert same(vars(load_latest(tmp_path, pytest.fail)), vars(third))


@pytest.mark.parametrize("big", ["weights", "average", "optimizer"])
def test_a_full_disk_is_an_oserror_and_changes_nothing(small_disk, big):
    before = state(1)
    save(small_disk, before, "", keep=1)
    too_much = {name: {"a": torch.randn(8)} for name in ("weights", "average", "optimizer")}
    too_much[big] = {"a": torch.randn(1024, 512)}
    with pytest.raises(OSError, match="No space left"):
        save(small_disk, State(2, **too_much), "", keep=1)
    assert names(small_disk) == ["step-00000001"]
    assert same(vars(load_latest(small_disk, pytest.fail)), vars(before))


def test_a_full_disk_leaves_the_best_and_its_name(small_disk):
    """Though the new one would be the best: nothing is removed for it before it is whole."""
    first, second = {"step": 1, "value": 0.5}, {"step": 3, "value": 0.9}
    save(small_disk, replace(state(1), best=first), "", keep=1)
    save(small_disk, replace(state(2), best=first), "", keep=1)
    before = (small_disk / BEST).read_text()
    with pytest.raises(OSError, match="No space left"):
        save(small_disk, State(3, {"a": torch.randn(1024, 512)}, {}, {}, best=second), "", keep=1)
    assert names(small_disk) == [BEST, "step-00000001", "step-00000002"]
    assert (small_disk / BEST).read_text() == before
    assert find(small_disk, "best", pytest.fail).name == "step-00000001"
    save(small_disk, replace(state(3), best=second), "", keep=1)
    assert names(small_disk) == [BEST, "step-00000003"]


@pytest.fixture
def small_files():
    """No file may grow past 64 KiB; Python ignores the signal, so writing more is an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("big", ["weights", "average", "optimizer"])
def test_a_file_that_can_not_be_written_changes_nothing(tmp_path, small_files, big):
    before = state(1)
    save(tmp_path, before, "", keep=1)
    parts = {name: {"a": torch.randn(8)} for name in ("weights", "average", "optimizer")}
    parts[big] = {"a": torch.randn(512, 512)}
    with pytest.raises(Exception, match=r"(?i)too large|unexpected pos"):
        save(tmp_path, State(2, **parts), "", keep=1)
    assert names(tmp_path) == ["step-00000001"]
    assert same(vars(load_latest(tmp_path, pytest.fail)), vars(before))


def test_the_manifest_names_every_file(tmp_path):
    path = save(tmp_path, state(1), "", keep=1)
    assert {*json.loads((path / MANIFEST).read_text()), MANIFEST} == set(names(path))
