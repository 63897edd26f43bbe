"""Eight-bit moments learn and are saved; a compiled network takes the same step."""

import sys

import pytest
import torch

import small
from apexgen import checkpoint
from apexgen.train import train
from small import EMBEDDED, trainer, trainer_of

EIGHT = "train.optimizer=adamw8bit"


def test_eight_bit_moments_are_small_and_a_run_goes_on_with_them_bitwise(tmp_path):
    pytest.importorskip("bitsandbytes")
    whole = trainer(tmp_path, EIGHT)
    train(whole, tmp_path, lambda step, logs: None)
    values = [value for moments in whole.optimizer.state.values() for value in moments.values()]
    kinds = {value.dtype for value in values if isinstance(value, torch.Tensor) and value.numel() >= 4096}
    assert kinds == {torch.uint8}
    resumed = trainer(tmp_path, EIGHT)
    resumed.restore(checkpoint.load(tmp_path / "checkpoints" / "step-00000002"))
    while resumed.step < 4:
        resumed.advance()
    for name, weight in whole.student.trained.items():
        assert torch.equal(weight, resumed.student.trained[name])


def test_eight_bit_steps_follow_the_full_ones(tmp_path):
    pytest.importorskip("bitsandbytes")
    ends = []
    for setting in (EIGHT, "train.optimizer=adamw"):
        made = trainer(tmp_path, setting)
        start = {name: weight.detach().clone() for name, weight in made.student.trained.items()}
        for _ in range(3):
            made.advance()
        ends.append(
            torch.cat([(weight - start[name]).detach().flatten() for name, weight in made.student.trained.items()])
        )
    assert torch.cosine_similarity(ends[0], ends[1], dim=0) > 0.95


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match=r'^train\.optimizer = "adamw8bit" needs .* pip install "apexgen\[memory\]"$'):
        trainer(tmp_path, EIGHT)


def test_a_compiled_step_is_the_plain_one(tmp_path, monkeypatch):
    """Of a network of one block, each being compiled on its own; its graphs are caught and differentiated as ever, and
    only the generating of machine code, which takes minutes, is left out."""
    steps, whole = [], small.open_backbone
    monkeypatch.setattr(small, "open_backbone", lambda run: cut(whole(run)))
    compile_block = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block: compile_block(block, backend="aot_eager"))
    for compiled in ("false", "true"):
        made = trainer(tmp_path, *EMBEDDED, "objective.warmup=0", f"train.compile={compiled}")
        logs = made.advance()
        made.advance()  # with other weights than it was compiled with
        steps.append((logs, made.student.average))
    assert steps[1][0] == pytest.approx(steps[0][0], rel=1e-4, abs=1e-6)
    for name, tensor in steps[0][1].items():
        assert (steps[1][1][name] - tensor).abs().max() < 1e-3 * max(1e-2, tensor.abs().max()), name


def cut(net):
    """The network without all blocks but the first."""
    for stack in net.network.children():
        if isinstance(stack, torch.nn.ModuleList):
            del stack[1:]
    return net


def test_compiling_does_not_go_with_forward_mode():
    with pytest.raises(ValueError, match=r"train\.compile does not go with forward mode; write objective\.difference"):
        trainer_of("mean_flow", "train.compile=true")
