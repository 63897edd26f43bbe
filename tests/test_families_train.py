"""Every family learns: what is trained gets its gradient, leaves the teacher alone and opens in the stock pipeline."""

import numpy as np
import pytest
import torch
from PIL import Image

from apexgen.backbones.base import fast_attention
from apexgen.config import load_run
from apexgen.distill import open_student
from apexgen.encode import encode
from apexgen.export.diffusers import export_student
from apexgen.generate import draw_noise, make_pictures
from apexgen.student import Student
from apexgen.train import Trainer, open_objective
from families import LONG, SHORT, inputs, opened
from pipelines import BUILDERS, SIZE
from small import compare, perturb


@pytest.fixture(scope="module", params=BUILDERS)
def folder(request, folders):
    return folders[request.param]


def test_the_teacher_is_the_adapter_off_bit_for_bit(folder):
    net = opened(folder)
    x, t, c = inputs(net)
    with torch.no_grad():
        before = net(x, t, t, c)
        student = Student(net, "lora", rank=2)
        perturb(student)
        assert torch.equal(student.teacher(x, t, t, c), before)
        assert not torch.allclose(net(x, t, t, c), before, atol=1e-3)


def short_trainer(net, folder, *settings):
    for index, prompt in enumerate([SHORT, LONG, "a blue cross"]):
        pixels = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(prompt)
    run = load_run(None, ["train.steps=3", "train.batch=1", f"data.source={folder}", *settings])
    student, pictures = open_student(run, net), open_objective(run).needs_pictures
    return Trainer(run, student, encode(run.data, net, pictures), net.latent_shape())


def test_an_objective_of_two_times_trains_in_forward_mode(folder, tmp_path):
    settings = ["objective.name=mean_flow", "objective.equal_share=0.0", "objective.difference=0"]
    trainer = short_trainer(opened(folder), tmp_path, *settings)
    for _ in range(2):
        trainer.advance()
    assert trainer.student.backbone.second.last.weight.any()


def gradients(net, student):
    x, t, c = inputs(net)
    with fast_attention(x.device):
        net(x, t, t, c).square().mean().backward()
    found = {name: weight.grad for name, weight in student.weights.items()}
    student.backbone.network.zero_grad()
    return found


def test_every_trained_weight_gets_a_gradient_checkpointed_or_not(folder):
    net = opened(folder)
    student = Student(net, "lora", 2, "all-linear")  # the other presets are within it
    perturb(student)
    plain = gradients(net, student)
    net.network.enable_gradient_checkpointing()
    checkpointed = gradients(net, student)
    for name, gradient in plain.items():
        assert gradient is not None and gradient.abs().max() > 0, name
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-7, rtol=1e-4, msg=name)


@pytest.mark.filterwarnings("error::UserWarning", "ignore:.* by CLIP alone")
def test_a_short_run_trains_exports_and_opens_in_the_stock_pipeline(folder, tmp_path):
    net = opened(folder)
    trainer = short_trainer(
        net, tmp_path, "train.warmup=0", "train.learning_rate=0.05", "model.rank=2", "objective.warmup=1"
    )
    for _ in range(3):
        trainer.advance()
    exported = export_student(trainer.student, folder, tmp_path / "export")
    noise = draw_noise([0, 1], net.latent_shape())
    for steps in (1, 2):
        assert compare(trainer.student, exported, folder, [SHORT, LONG], noise, steps) < 1e-4
    condition = net.encode_text([SHORT, LONG])
    student = trainer.student
    ours, teacher = (make_pictures(net, field, condition, noise, 1) for field in (student.ema, student.teacher))
    assert np.abs(ours - teacher).max() > 1e-3  # else nothing was learnt, and equal pictures prove nothing


def test_full_tuning_tolerates_what_gets_no_gradient(folder, tmp_path):
    trainer = short_trainer(opened(folder), tmp_path, 'model.tune="full"')
    assert trainer.advance()["gradient_norm"] > 0
