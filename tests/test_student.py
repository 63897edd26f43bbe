"""One network in three roles: each is exactly what it says, and changing roles leaves nothing behind."""

import pytest
import torch

from apexgen.student import Student
from small import backbone, inputs, perturb


@pytest.fixture(params=["lora", "full"])
def student(request) -> Student:
    return Student(backbone(), request.param, rank=4)


@torch.no_grad()
def test_before_training_all_three_are_the_pretrained_model_bitwise(student):
    x, t, c = inputs(student.backbone)
    expected = backbone()(x, t, t, c)
    for velocity in (student.backbone, student.teacher, student.ema):
        assert torch.equal(velocity(x, t, t, c), expected)


@torch.no_grad()
def test_the_teacher_stays_the_pretrained_model_bitwise(student):
    x, t, c = inputs(student.backbone)
    expected = backbone()(x, t, t, c)
    perturb(student)
    assert torch.equal(student.teacher(x, t, t, c), expected)
    assert not torch.allclose(student.backbone(x, t, t, c), expected, atol=1e-3)


@torch.no_grad()
def test_the_ema_runs_the_average_and_changes_nothing(student):
    x, t, c = inputs(student.backbone)
    perturb(student)
    before = student.backbone(x, t, t, c)
    average = student.ema(x, t, t, c)
    assert torch.equal(student.backbone(x, t, t, c), before)
    assert not torch.allclose(average, before, atol=1e-3)
    with student.averaged():
        torch.testing.assert_close(student.backbone(x, t, t, c), average, atol=1e-5, rtol=1e-5)
    assert torch.equal(student.backbone(x, t, t, c), before)


def test_the_gradient_survives_a_turn_as_teacher(student):
    x, t, c = inputs(student.backbone)
    perturb(student)

    def gradients(interrupt: bool) -> list[torch.Tensor]:
        loss = student.backbone(x, t, t, c).square().mean()
        if interrupt:
            student.teacher(x, t, t, c)
            student.ema(x, t, t, c)
        return torch.autograd.grad(loss, list(student.weights.values()), allow_unused=True)

    for plain, interrupted in zip(gradients(False), gradients(True), strict=True):
        assert (plain is None and interrupted is None) or torch.equal(plain, interrupted)


def test_a_lora_reads_what_autocast_gives_it_and_no_cast_in_between_would_matter():
    student = Student(backbone(), "lora", rank=4)
    perturb(student)
    student.backbone.precision = torch.bfloat16
    (x, t, c), read = inputs(student.backbone), []
    modules = dict(student.backbone.network.named_modules())
    for name, module in modules.items():
        if name.endswith("lora_A.student"):
            module.register_forward_pre_hook(lambda module, given: read.append(given[0].dtype))
    with torch.no_grad():
        plain = student.backbone(x, t, t, c)
        assert torch.bfloat16 in read  # where a norm is before it, it is given float32
        for module in modules.values():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = True
        read.clear()
        assert torch.equal(student.backbone(x, t, t, c), plain) and set(read) == {torch.float32}


def test_the_average_follows_its_formula():
    student = Student(backbone(), "lora", rank=2)
    name = next(iter(student.weights))
    start = student.average[name].clone()
    perturb(student)
    weight, mean = student.weights[name].detach().clone(), student.average[name].clone()
    student.update_average(decay=0.9, step=10_000)
    torch.testing.assert_close(student.average[name], 0.9 * mean + 0.1 * weight)
    assert not torch.equal(student.average[name], start)


def test_lora_trains_only_the_adapter_and_full_trains_everything():
    lora, full = Student(backbone(), "lora", rank=4), Student(backbone(), "full", rank=4)
    assert all("lora_" in name for name in lora.weights)
    assert sum(w.numel() for w in full.weights.values()) == sum(p.numel() for p in full.backbone.network.parameters())
    assert all("lora_" not in name for name in full.weights)
