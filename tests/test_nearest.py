"""What a device has no memory for is refused before it is opened, with the nearest run that it has memory for."""

import json
import shutil
import struct

import pytest
import torch
from rich.console import Console

from apexgen.backbones.header import read_header
from apexgen.config import load_run
from apexgen.cost import memory_there
from apexgen.distill import distill, open_backbone, open_student
from apexgen.least import least_memory, read_outline
from apexgen.nearest import check_memory, within_memory
from apexgen.plan import make_plan, show_plan
from pipelines import BUILDERS, SIZE
from small import short_run

QUIET = Console(quiet=True)
SIDE, BLOCKS = 2**14, 40
SHARDED = (
    "train.batch=1", "model.checkpointing=true", "model.tune=full", "train.parallel=fsdp", "train.processes=2",
)  # fmt: skip


def run_of(pipeline, *settings):
    return load_run(None, ["folder=unwritten", f"model.path={pipeline}", f"model.size={SIZE}", *settings])


@pytest.fixture
def large(folders, tmp_path):
    """A pipeline whose network has so many numbers; its files are all holes."""

    def build(numbers):
        folder = shutil.copytree(folders["flux"], tmp_path / "large")
        shape = [SIDE, numbers // SIDE // BLOCKS]
        each = 4 * shape[0] * shape[1]
        entries = {
            f"transformer_blocks.{n}.attn.to_q.weight": {
                "dtype": "F32", "shape": shape, "data_offsets": [n * each, (n + 1) * each],
            }
            for n in range(BLOCKS)
        }  # fmt: skip
        header = json.dumps(entries).encode()
        header += b" " * (-len(header) % 8)
        with (folder / "transformer" / "diffusion_pytorch_model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + BLOCKS * each)
        return folder

    return build


@pytest.mark.parametrize("settings", [(), ("model.tune=full",), ('model.targets="all-linear"',)])
@pytest.mark.parametrize("family", BUILDERS)
def test_the_arithmetic_on_headers_is_what_is_then_opened(folders, family, settings):
    run = run_of(folders[family], *settings)
    backbone = open_backbone(run, with_text=False)
    backbone.forget_encoders()
    student, least = open_student(run, backbone), least_memory(run, read_outline(folders[family]))
    trained = sum(weight.nbytes for weight in student.trained.values())
    modules = (backbone.network, backbone.pipeline.vae)
    still = sum(weight.nbytes for one in modules for weight in one.parameters() if not weight.requires_grad)
    assert least["weights"] == still
    unread = 0.25 if family == "qwen" else 0.03 if family == "sd3" else 0  # what no LoRA adapts, of two blocks
    found = least["LoRA" if student.mode == "lora" else "trained weights"]
    assert trained <= found <= (1 + unread) * trained
    assert least["optimizer"] == 2 * least["gradients"] == 2 * found


@pytest.mark.parametrize(
    "settings, share, words",
    [
        ((), 1 / 3, 'write model.weights = "bfloat16"'),
        (("model.weights=bfloat16",), 2 / 3, 'write model.weights = "8bit"'),
        (("model.tune=full",), 1 / 20, 'write train.optimizer = "adamw8bit"'),
        (
            ("model.tune=full", "train.batch=8"),
            1 / 10,
            'write train.parallel = "fsdp" and train.batch = 2 and start 4 processes: '
            'torchrun --nproc-per-node 4 -m apexgen train ..., or write model.tune = "lora"',
        ),
        ((), 100, "take a device with more"),
    ],
)
def test_too_many_weights_are_refused_before_any_is_opened(large, monkeypatch, settings, share, words):
    monkeypatch.setattr("apexgen.backbones.diffusion.open_pipeline", pytest.fail)
    run = run_of(large(int(share * memory_there())), *settings)
    for start in (show_plan, distill):
        with pytest.raises(ValueError, match=r"^weights, gradients and optimizer need .* has .* GB; ") as refused:
            start(run, QUIET)
        assert str(refused.value).endswith(f"GB; {words}")


def test_processes_that_are_there_share_the_weights_before_more_are_asked_for(large):
    folder, there = large(int(memory_there() / 10)), ("model.tune=full", "train.batch=1")
    run = run_of(folder, *there, "train.parallel=ddp", "train.processes=6")
    with pytest.raises(ValueError, match=r'; write train\.parallel = "fsdp", or write'):
        check_memory(run, folder)
    check_memory(run_of(folder, *there, "train.parallel=fsdp", "train.processes=6"), folder)


def test_of_all_runs_that_are_weighed_the_headers_are_read_once(large, monkeypatch):
    folder, read = large(int(memory_there() / 10)), []
    monkeypatch.setattr("apexgen.least.read_header", lambda file: (read.append(file), read_header(file))[1])
    with pytest.raises(ValueError, match="write "):
        check_memory(run_of(folder, "model.tune=full", "train.batch=8"), folder)
    assert len(read) == len(set(read)) > 1


def test_where_whole_gradients_are_too_many_they_are_cut_at_every_term(large):
    folder, there = large(int(memory_there() / 10)), ("model.tune=full", "train.batch=1", "train.parallel=fsdp")
    with pytest.raises(ValueError, match=r'GB; write train\.reduce_gradients = "term"$'):
        check_memory(run_of(folder, *there, "train.processes=3"), folder)
    by_term = (*there, "train.reduce_gradients=term")
    check_memory(run_of(folder, *by_term, "train.processes=3"), folder)
    lora = r'write model\.tune = "lora" and train\.parallel = "ddp" and train\.reduce_gradients = "step"$'
    with pytest.raises(ValueError, match=r"GB; start 4 processes: torchrun .*, or " + lora):
        check_memory(run_of(folder, *by_term, "train.processes=2"), folder)


def test_a_plan_that_needs_more_than_there_is_tells_what_checkpointing_would_hold(tmp_path, monkeypatch):
    run = short_run(tmp_path, "train.batch=8")
    assert make_plan(run).checkpointed is None
    monkeypatch.setattr("apexgen.plan.memory_there", lambda: 1)
    plan = make_plan(run)
    assert plan.checkpointed < plan.memory["activations"]
    assert make_plan(short_run(tmp_path, "model.checkpointing=true")).checkpointed is None


def test_to_run_out_of_memory_is_refused_in_one_line(tmp_path):
    run = short_run(tmp_path / "run")
    words = (
        r"^a step with train\.batch = 2 takes more memory .*; write train\.batch = 1 and train\.accumulate = 2, a step"
    )
    with pytest.raises(ValueError, match=words):
        distill(run, QUIET, watch=lambda trainer: torch.empty(2**50))
    for settings, way in (
        (("train.batch=1",), "write model.checkpointing = true"),
        (
            ("train.batch=1", "model.checkpointing=true"),
            'write model.weights = "bfloat16" and model.precision = "auto"',
        ),
        (SHARDED, 'write train.reduce_gradients = "term"'),
    ):
        with pytest.raises(ValueError, match=r"^a step") as refused, within_memory(short_run(tmp_path, *settings)):
            torch.empty(2**50)
        assert str(refused.value).endswith(f"; {way}")
    for opened, way in ((run, "bfloat16"), (short_run(tmp_path, *SHARDED), r'; write model\.tune = "lora"')):
        with pytest.raises(ValueError, match=rf"^opening the model .*{way}"), within_memory(opened, steps=False):
            torch.empty(2**50)
    with pytest.raises(RuntimeError, match="size of tensor"), within_memory(run):
        torch.ones(2) + torch.ones(3)
