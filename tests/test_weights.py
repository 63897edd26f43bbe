"""A base held in fewer bits: the LoRA stays float32, learns the same, and opens on the base as published."""

import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from apexgen.backbones import later
from apexgen.backbones.base import Backbone, fast_attention
from apexgen.backbones.diffusion import load_backbone, open_pipeline
from apexgen.backbones.held import quantise
from apexgen.config import load_run
from apexgen.cost import bytes_of, numbers_in
from apexgen.distill import distill, encode_run, open_backbone, open_student
from apexgen.export.diffusers import LORA_FILE
from apexgen.export.run import export_run
from apexgen.plan import make_plan
from apexgen.velocities import along_flow
from pipelines import BUILDERS, SIZE
from runs import finished_run
from small import inputs, perturb

QUIET = Console(quiet=True)
HELD = ("bfloat16", "8bit", "4bit")
ROUNDING = {"bfloat16": 0.1, "8bit": 0.1, "4bit": 0.4}  # of a velocity, relative; NF4 gave SANA .10 to .33 in six draws
pytestmark = [
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight"),  # of torch, once
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),  # stock diffusers, of two LoRAs
]


def run_of(pipeline, tmp_path, *settings):
    (tmp_path / "prompts.txt").write_text("a red ring\na photo of two blue rings\na blue cross\n")
    return load_run(
        None,
        [
            f"folder={tmp_path / 'run'}", f"model.path={pipeline}", f"model.size={SIZE}", "model.rank=2",
            f"data.source={tmp_path / 'prompts.txt'}", "train.steps=3", "train.batch=2", "train.warmup=0",
            "train.learning_rate=0.02", "train.save_every=1", "objective.warmup=1", *settings,
        ],
    )  # fmt: skip


def answer(student):
    """A velocity of the teacher, and the gradient of one of the student, which sees weights unlike its first ones."""
    net = student.backbone
    x = torch.randn(2, *net.latent_shape(), generator=torch.Generator().manual_seed(1))
    t, c = torch.tensor([0.3, 0.7]).view(2, 1, 1, 1), net.encode_text(["a red ring", "a photo of two blue rings"])
    with torch.no_grad():
        velocity = student.teacher(x, t, t, c)
    net(x, t, t, c).square().mean().backward()
    return velocity, torch.cat([weight.grad.flatten() for weight in student.weights.values()])


@pytest.mark.parametrize("family", BUILDERS)
def test_on_fewer_bits_the_teacher_is_nearly_itself_and_the_lora_learns_the_same_in_float32(folders, tmp_path, family):
    answers = {}
    for weights in ("float32", *HELD):
        run = run_of(folders[family], tmp_path, f"model.weights={weights}")
        net = open_backbone(run)
        net.precision = None if weights == "float32" else net.precision
        student = open_student(run, net)
        perturb(student)
        answers[weights] = answer(student)
        assert {weight.dtype for weight in student.trained.values()} == {torch.float32}
        assert net.pipeline.vae.dtype == torch.float32
        base = [module.base_layer for module in net.network.modules() if hasattr(module, "base_layer")]
        [kind] = {type(layer.weight) for layer in base if isinstance(layer, torch.nn.Linear)}
        assert (kind is torch.nn.Parameter) == (weights in ("float32", "bfloat16"))
    velocity, gradient = answers.pop("float32")
    for weights, (rough, step) in answers.items():
        assert rough.dtype == torch.float32
        assert 0 < (rough - velocity).norm() < ROUNDING[weights] * velocity.norm(), weights
        assert torch.cosine_similarity(step, gradient, dim=0) > (0.8 if weights == "4bit" else 0.99), weights


@pytest.mark.parametrize("weights", ["8bit", "4bit"])
def test_a_run_on_a_quantised_base_trains_resumes_and_opens_on_the_base_as_published(folders, tmp_path, weights):
    """On top of a user's LoRA, which is stacked, as nothing can be merged into such weights."""
    task = finished_run(tmp_path / "task", folders["sd3"])
    file = export_run(task, "diffusers").folder / LORA_FILE
    settings = (f"model.weights={weights}", f"model.lora={file}", "model.checkpointing=true", "model.targets=attention")
    run = run_of(folders["sd3"], tmp_path, *settings)
    assert run.model.lora_mode == "stack"
    distill(run, Console(quiet=True))
    last = tmp_path / "run" / "checkpoints" / "step-00000003"
    whole = load_file(last / "student.safetensors")
    start = open_student(run, open_backbone(run)).weights
    assert all(not torch.equal(whole[name], weight) for name, weight in start.items())
    shutil.rmtree(last)
    distill(run, Console(quiet=True))
    again = load_file(last / "student.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    exported = export_run(tmp_path / "run", "diffusers")
    assert exported.difference < 1e-4 and exported.modules > 10


@pytest.mark.parametrize("family", ["sd3", "qwen", "sana"])  # three encoders and a pooled vector, a template, a mask
def test_on_fewer_bits_a_card_holds_the_text_encoders_or_the_network(folders, tmp_path, family, monkeypatch):
    """Texts are encoded before any weight of the network is read, and it is read when the encoders are gone."""
    seen, encode, fetch = [], Backbone.encode_text, later.fetch_network

    def encode_text(net, prompts):
        seen.append(("text", all(weight.is_meta for weight in net.network.parameters())))
        return encode(net, prompts)

    def fetch_network(net):
        seen.append(("network", not net.holds_text))
        fetch(net)

    monkeypatch.setattr(Backbone, "encode_text", encode_text)
    monkeypatch.setattr("apexgen.distill.fetch_network", fetch_network)
    settings = ("model.weights=bfloat16", "objective.shift_learned=true", "train.steps=2")
    run = run_of(folders[family], tmp_path, *settings, f"data.cache={tmp_path / 'cache'}")
    first, _ = distill(run, QUIET)
    assert all(alone for _, alone in seen) and [what for what, _ in seen].count("network") == 1
    seen.clear()
    shutil.rmtree(tmp_path / "run")
    again, _ = distill(run, QUIET)
    assert seen == [("network", True)]  # of a cache that is whole, no text is encoded
    whole = load_backbone(folders[family], weights="bfloat16").encode_text(list(first.corpus.prompts))
    read = first.corpus.conditions.select(torch.arange(3))
    kept, length = read.mask.bool(), read.embeds.shape[1]
    assert torch.equal(read.embeds[kept], whole.embeds[:, :length].float()[kept])
    trained = again.student.trained
    assert all(torch.equal(weight, trained[name]) for name, weight in first.student.trained.items())


def test_a_derivative_along_the_flow_is_that_of_the_weights(folders, tmp_path):
    """By forward mode, of those kinds that are let through with it."""
    slopes = {}
    for weights in ("float32", "bfloat16", "8bit"):
        net = open_backbone(run_of(folders["sana"], tmp_path, f"model.weights={weights}"))
        x, t, c = inputs(net)
        with torch.no_grad(), fast_attention(x.device):
            slopes[weights] = along_flow(net, x, t, t, c, x, 0.0)[1]
    for weights, slope in slopes.items():
        assert (slope - slopes["float32"]).norm() < ROUNDING.get(weights, 0.0) * slopes["float32"].norm() + 1e-6


def test_a_cache_is_filled_without_the_network(folders, tmp_path):
    run = run_of(folders["qwen"], tmp_path, f"data.cache={tmp_path / 'cache'}")
    (folders["qwen"] / "transformer").rename(tmp_path / "away")
    try:
        (folders["qwen"] / "transformer").mkdir()
        shutil.copy(tmp_path / "away" / "config.json", folders["qwen"] / "transformer")
        assert encode_run(run, QUIET)["captions"] == 3
    finally:
        shutil.rmtree(folders["qwen"] / "transformer")
        (tmp_path / "away").rename(folders["qwen"] / "transformer")


def test_the_plan_counts_what_the_weights_take(folders, tmp_path):
    plans = [make_plan(run_of(folders["flux"], tmp_path, f"model.weights={held}")) for held in ("float32", *HELD)]
    assert len({plan.parameters for plan in plans}) == len({plan.memory["LoRA"] for plan in plans}) == 1
    full, half, eighth, fourth = (plan.memory["weights"] for plan in plans)
    backbone = load_backbone(folders["flux"])
    backbone.forget_encoders()
    vae = sum(weight.nbytes for weight in backbone.pipeline.vae.parameters())
    assert half == vae + (full - vae) / 2 and fourth < eighth < half


@pytest.mark.parametrize("weights, size", [("8bit", 256 * 128), ("4bit", 256 * 128 / 2)])
def test_quantised_tensors_are_counted_by_what_they_hold(weights, size):
    net = torch.nn.Sequential(torch.nn.Linear(256, 128, bias=False, dtype=torch.bfloat16))
    quantise(net, weights, "cpu")
    assert size < bytes_of(net[0].weight) <= size + 256 * 128 / 64 * 4  # a scale a row, or for 64 weights
    assert numbers_in(net[0].weight) == 256 * 128
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


@pytest.mark.parametrize("weights, package", [("8bit", "torchao"), ("4bit", "bitsandbytes")])
def test_a_missing_package_is_named_before_anything_is_opened(folders, monkeypatch, weights, package):
    monkeypatch.setattr("apexgen.backbones.held.find_spec", lambda name: None)
    monkeypatch.setattr("apexgen.backbones.diffusion.open_pipeline", pytest.fail)
    with pytest.raises(ValueError, match=rf'"{weights}" needs {package}; write: pip install "apexgen\[memory\]"'):
        load_backbone(folders["sd3"], weights=weights)


@pytest.mark.parametrize("family", ["flux", "qwen"])
def test_a_base_published_in_bfloat16_is_float32_where_asked_its_text_encoders_too(folders, tmp_path, family):
    published = open_pipeline(folders[family])
    for part in ("transformer", "text_encoder"):
        getattr(published, part).to(torch.bfloat16)
    published.save_pretrained(tmp_path / "base")
    net = load_backbone(tmp_path / "base")
    c = net.encode_text(["two rings"])
    assert {net.network.dtype, net.pipeline.text_encoder.dtype, c.embeds.dtype} == {torch.float32}
    x, t = torch.randn(1, *net.latent_shape(64, 64)), torch.ones(1, 1, 1, 1)
    assert net(x, t, t, c).isfinite().all()
