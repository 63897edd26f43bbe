"""A second time given to a stock network: silent at the start and at r = t, read elsewhere, trained with the LoRA."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from apexgen import checkpoint
from apexgen.backbones.base import fast_attention
from apexgen.backbones.two_times import give_second_time
from apexgen.demo import run_demo
from apexgen.distill import open_student
from apexgen.objectives import OBJECTIVES
from apexgen.student import Student
from apexgen.velocities import along_flow
from small import backbone, inputs, perturb, trainer_of


@pytest.fixture(params=["lora", "full"])
def student(request):
    net = backbone()
    give_second_time(net)
    return Student(net, request.param, rank=4)


@torch.no_grad()
def test_at_the_start_it_changes_nothing_whatever_r_is(student):
    x, t, c = inputs(student.backbone)
    expected = backbone()(x, t, t, c)
    for r in (t, torch.zeros_like(t), -t):
        for velocity in (student.backbone, student.teacher, student.ema):
            assert torch.equal(velocity(x, t, r, c), expected)


@torch.no_grad()
def test_once_trained_r_is_read_and_at_equal_times_only_the_adapter_speaks(student):
    x, t, c = inputs(student.backbone)
    student.backbone.second.last.weight.normal_()
    assert torch.equal(student.backbone(x, t, t, c), backbone()(x, t, t, c))
    assert not torch.allclose(student.backbone(x, t, t / 2, c), student.backbone(x, t, t, c), atol=1e-3)


@torch.no_grad()
def test_the_teacher_stays_the_pretrained_model_and_reads_one_time(student):
    x, t, c = inputs(student.backbone)
    perturb(student)
    assert torch.equal(student.teacher(x, t, t / 2, c), backbone()(x, t, t, c))


def test_its_weights_are_the_students_and_are_given_once():
    net = backbone()
    give_second_time(net)
    second = net.second
    give_second_time(net)
    assert net.second is second
    assert "second_time.last.weight" in Student(net, "lora", rank=4).weights
    assert "second_time.last.weight" not in Student(backbone(), "lora", rank=4).weights


def test_forward_mode_passes_the_real_network_and_agrees_with_differences():
    net = backbone()
    give_second_time(net)
    with torch.no_grad():
        net.second.last.weight.normal_(std=0.1)
    x, t, c = inputs(net)
    v = torch.ones_like(x)
    with fast_attention(x.device):
        _, exact = along_flow(net, x, t, t / 2, c, v, 0.0)
        _, close = along_flow(net, x, t, t / 2, c, v, 1e-4)
    assert (close - exact).norm() < 0.02 * exact.norm()


def test_forward_mode_goes_through_plain_attention_where_a_fused_one_would_be_taken():
    """No fused kernel has a forward mode, and weights in fewer bits have no difference to fall back on."""
    net = backbone()
    x, t, c = inputs(net)
    v = torch.ones_like(x)
    with fast_attention(x.device):
        plain = along_flow(net, x, t, t / 2, c, v, 0.0)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        fused = along_flow(net, x, t, t / 2, c, v, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(fused, plain, strict=True))


class Twice(torch.autograd.Function):
    """A kernel that has no forward mode."""

    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope


def test_a_kernel_without_a_forward_mode_costs_one_warning():
    net = backbone()
    x, t, c = inputs(net)
    v = torch.ones_like(x)

    def twice(x, t, r, c):
        return Twice.apply(net(x, t, r, c))

    with pytest.warns(UserWarning, match=r"write difference = 0.0001") as told:
        fallen = along_flow(twice, x, t, t / 2, c, v, 0.0)
        assert sum("write difference" in str(warning.message) for warning in told) == 1
        asked = along_flow(twice, x, t, t / 2, c, v, 1e-4)
    assert all(torch.equal(a, b) for a, b in zip(fallen, asked, strict=True))


def test_a_difference_is_float32s_whatever_the_precision():
    """In bfloat16 the rounding of its two ends, over 2 h, is larger than what it is to find."""
    net = backbone()
    x, t, c = inputs(net)
    v = torch.ones_like(x)
    u, slope = along_flow(net, x, t, t, c, v, 1e-4)
    net.precision = torch.bfloat16
    rounded, same = along_flow(net, x, t, t, c, v, 1e-4)
    assert torch.equal(same, slope)
    assert 1e-3 < (rounded - u).norm() / u.norm() < 0.1, "the value itself is in the network's precision"


def test_weights_in_fewer_bits_have_no_difference_and_say_so():
    net = backbone()
    x, t, c = inputs(net)
    net.weights = "bfloat16"
    for _ in range(2):  # a refusal leaves nothing behind
        net(x, t, t, c)
        with pytest.raises(ValueError, match=r'"bfloat16" is too coarse .* write model.weights = "float32"'):
            along_flow(net, x, t, t, c, x, 1e-4)


TO_LEARN_AT_ONCE = {
    "apex": ("objective.warmup=1",),
    "dmd": ("objective.warmup=1",),
    "mean_flow": ("objective.equal_share=0.0",),  # at equal times it is its teacher, which it begins as
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_the_real_pipeline_and_comes_back_from_its_checkpoint(name, tmp_path):
    made = trainer_of(name, *TO_LEARN_AT_ONCE.get(name, ()))
    run, net = made.run, made.student.backbone
    before = {key: weight.detach().clone() for key, weight in made.student.trained.items()}
    for _ in range(2):  # the second is past the warm-up
        made.advance()
    assert any(not torch.equal(before[key], weight) for key, weight in made.student.trained.items())
    assert (net.second is not None) == made.objective.needs_second_time
    checkpoint.save(tmp_path, made.state(), "", keep=1)
    again = open_student(run, backbone())
    saved = checkpoint.load_latest(tmp_path, pytest.fail)
    again.load(saved.weights, saved.average, saved.kept)
    x, t, c = inputs(net)
    with torch.no_grad():
        assert torch.equal(again.ema(x, t, t / 2, c), made.student.ema(x, t, t / 2, c))


def test_the_demo_refuses_before_it_begins_what_no_stock_pipeline_could_open(tmp_path, monkeypatch):
    path = tmp_path / "two.toml"
    path.write_text('[objective]\nname = "mean_flow"\n')
    monkeypatch.setattr("apexgen.demo.CONFIG", path)
    monkeypatch.setattr("apexgen.demo.settings_here", tuple)  # of APEX
    with pytest.raises(ValueError, match=r'needs a second time.*objective.name = "apex"'):
        run_demo(tmp_path / "new", [], False, 1, None)
    assert not (tmp_path / "new").exists()
