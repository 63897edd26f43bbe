"""A base held in fewer bits: the LoRA stays float32, trains, and opens on the base as published."""

import pytest
import torch

from apexgen.backbones.diffusion import load_backbone
from apexgen.backbones.held import loading_options
from apexgen.config import dump_run, load_run
from apexgen.cost import bytes_of
from apexgen.distill import open_backbone, open_student
from apexgen.encode import encode
from apexgen.export.run import export_run
from apexgen.plan import make_plan
from apexgen.scenes.pipeline import FOLDER
from apexgen.train import Trainer, train
from pipelines import BUILDERS, SIZE

HELD = ("bfloat16", "8bit")
pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # of torch, once


def run_of(name, folders, tmp_path, *settings):
    (tmp_path / "prompts.txt").write_text("a red ring\na photo of two blue rings\na blue cross\n")
    pipeline = name if name == "scenes" else folders[name]
    return load_run(
        None,
        [
            f"folder={tmp_path / 'run'}", f"model.path={pipeline}", f"model.size={SIZE}", "model.rank=2",
            f"data.source={tmp_path / 'prompts.txt'}", "train.steps=3", "train.batch=2", "train.warmup=0",
            "train.learning_rate=0.02", "objective.warmup=1", *settings,
        ],
    )  # fmt: skip


def trainer_of(run):
    net = open_backbone(run)
    return Trainer(run, open_student(run, net), encode(run.data, net, pictures=False), net.latent_shape())


@pytest.mark.parametrize(
    ("name", "weights"), [*((name, "8bit") for name in [*BUILDERS, "scenes"]), ("sd3", "bfloat16")]
)
def test_a_lora_on_fewer_bits_trains_in_float32(folders, tmp_path, name, weights):
    run = run_of(name, folders, tmp_path, f"model.weights={weights}", "model.checkpointing=true")
    trainer = trainer_of(run)
    net, student = trainer.student.backbone, trainer.student
    assert {weight.dtype for weight in student.trained.values()} == {torch.float32}
    assert net.pipeline.vae.dtype == torch.float32
    base = [weight for name, weight in net.network.named_parameters() if name not in student.weights]
    assert {weight.dtype for weight in base} == {torch.bfloat16}  # torchao's say what they compute in
    assert any("Int8" in type(weight).__name__ for weight in base) == (weights == "8bit")
    exact = load_backbone(folders.get(name, FOLDER))
    exact.size = SIZE
    teacher, expected = student.teacher(*inputs(net)), exact(*inputs(exact))
    assert teacher.dtype == torch.float32
    assert 0 < (teacher - expected).norm() < 0.1 * expected.norm()
    before = {name: weight.detach().clone() for name, weight in student.weights.items()}
    trainer.advance(), trainer.advance()
    assert all(not torch.equal(before[name], weight) for name, weight in student.weights.items())
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in moments} == {torch.float32}


@pytest.mark.parametrize("name", ["flux", "scenes"])
def test_what_was_trained_on_fewer_bits_opens_on_the_base_as_published(folders, tmp_path, name):
    run = run_of(name, folders, tmp_path, "model.weights=8bit")
    train(trainer_of(run), tmp_path / "run", lambda step, logs: None)
    (tmp_path / "run" / "config.toml").write_text(dump_run(run))
    exported = export_run(tmp_path / "run", "diffusers")
    assert exported.difference < 1e-4 and exported.modules > 10


@torch.no_grad()
def inputs(net):
    x = torch.randn(2, *net.latent_shape(), generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.3, 0.7]).view(2, 1, 1, 1)
    return x, t, t, net.encode_text(["a red ring", "a photo of two blue rings"])


def test_the_plan_counts_what_the_weights_take(folders, tmp_path):
    plans = {held: make_plan(run_of("flux", folders, tmp_path, f"model.weights={held}")) for held in ("float32", *HELD)}
    assert (
        len({plan.parameters for plan in plans.values()}) == len({plan.memory["LoRA"] for plan in plans.values()}) == 1
    )
    full, half, eighth = (plans[held].memory["weights"] for held in ("float32", *HELD))
    vae = sum(weight.nbytes for weight in load_backbone(folders["flux"]).pipeline.vae.parameters())
    assert half == vae + (full - vae) / 2 and eighth < half


def test_quantised_tensors_are_counted_by_what_they_hold():
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layer = torch.nn.Linear(256, 128, bias=False, dtype=torch.bfloat16)
    quantize_(layer, Int8WeightOnlyConfig())
    assert 256 * 128 <= bytes_of(layer.weight) <= 256 * 128 + 8 * 128  # a scale a row, and more
    assert bytes_of(torch.zeros(3, 4)) == 48


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.weights=8bit", 'model.tune="full"'], 'weights = "8bit" can\'t be tuned; write tune = "lora"'),
        (["model.weights=bfloat16", 'model.tune="full"'], 'weights = "bfloat16" can\'t be tuned'),
        (["model.weights=4bit", "model.precision=float32"], 'computes in bfloat16; write precision = "auto"'),
        (["model.weights=4bit", "model.lora=a.safetensors", "model.lora_mode=merge"], 'write lora_mode = "stack"'),
        (["model.weights=2bit"], "model.weights"),
    ],
)
def test_what_can_not_be_is_refused_in_a_line(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_run(None, settings)
    assert "\n" not in str(caught.value)


def test_a_task_is_stacked_on_quantised_weights():
    assert load_run(None, ["model.weights=8bit", "model.lora=a.safetensors"]).model.lora_mode == "stack"


def test_four_bits_without_a_gpu_are_refused_before_anything_is_opened(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r'model\.weights = "4bit" needs a GPU; write model\.weights = "8bit"'):
        loading_options("4bit")
