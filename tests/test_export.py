"""An export opens in the stock pipeline and draws our pictures, or says so."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from apexgen.export.diffusers import LORA_FILE, export_student, open_exported
from apexgen.generate import draw_noise
from apexgen.scenes.pipeline import FOLDER
from apexgen.student import Student
from small import compare, embedded, perturb

PROMPTS = ["a photo of a red circle", "three squares"]


@pytest.fixture(params=["lora", "full"])
def student(request) -> Student:
    student = Student(embedded(), request.param, rank=4)
    perturb(student, 0.02)
    return student


def test_the_stock_pipeline_draws_our_pictures(tmp_path, student):
    folder = export_student(student, FOLDER, tmp_path / "export")
    noise = draw_noise([0, 1], student.backbone.latent_shape())
    for steps in (1, 2, 4):
        assert compare(student, folder, FOLDER, PROMPTS, noise, steps) < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


def test_the_difference_is_seen_when_the_weights_are_others(tmp_path):
    student = Student(embedded(), "lora", rank=4)
    perturb(student)
    folder = export_student(student, FOLDER, tmp_path / "export")
    weights = {name: 0 * tensor for name, tensor in load_file(folder / LORA_FILE).items()}
    with safe_open(folder / LORA_FILE, framework="pt") as file:
        metadata = file.metadata()
    save_file(weights, folder / LORA_FILE, metadata=metadata)
    difference = compare(student, folder, FOLDER, PROMPTS, draw_noise([0, 1], (8, 8, 8)), 4)
    assert difference > 1e-2


def test_the_lora_file_has_the_keys_that_load_everywhere(tmp_path):
    student = Student(embedded(), "lora", rank=4)
    perturb(student)
    folder = export_student(student, FOLDER, tmp_path / "export")
    with safe_open(folder / LORA_FILE, framework="pt") as file:
        names, metadata = set(file.keys()), json.loads(file.metadata()["lora_adapter_metadata"])
    assert all(name.startswith("transformer.") and name.endswith(("lora_A.weight", "lora_B.weight")) for name in names)
    assert metadata["transformer.r"] == metadata["transformer.lora_alpha"] == 4
    assert len(names) == len(student.weights)


def test_what_is_exported_is_the_average(tmp_path):
    student = Student(embedded(), "lora", rank=4)
    perturb(student)
    folder = export_student(student, FOLDER, tmp_path / "export")
    saved = load_file(folder / LORA_FILE)
    for name, tensor in student.average.items():
        key = "transformer." + name.replace(".student", "")
        assert torch.equal(saved[key], tensor), key


def test_a_module_that_did_not_take_effect_fails_loudly(tmp_path):
    student = Student(embedded(), "lora", rank=4)
    perturb(student)
    folder = export_student(student, FOLDER, tmp_path / "export")
    weights = load_file(folder / LORA_FILE)
    stray = {name.replace("transformer_blocks.0.", "transformer_blocks.99."): w for name, w in weights.items()}
    save_file(stray, folder / LORA_FILE)
    with pytest.raises(ValueError, match=r"of \d+ modules took effect"):
        open_exported(folder, FOLDER)
