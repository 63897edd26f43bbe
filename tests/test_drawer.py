"""Drawers: the sampler's own pictures, whichever way a model is opened; a picture knows nothing of its batch."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from apexgen.distill import open_trained, read_run
from apexgen.drawer import hash_weights, open_model
from apexgen.export.diffusers import LORA_FILE
from apexgen.export.run import export_run
from apexgen.generate import draw_noises, make_pictures
from apexgen.preview import draw_student
from apexgen.train import open_objective
from apexgen.velocities import guided
from runs import finished_run
from small import embedded

PROMPTS = ["a photo of a red circle", "two white rings", "a green square left of a blue cross"]
CLOSE = 1e-5  # float32, in another order


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("drawer") / "run", "scenes", "model.precision=float32")


@pytest.mark.parametrize("steps", [1, 3])
def test_a_run_draws_what_its_averaged_student_draws(run_folder, steps):
    run, saved = read_run(run_folder)
    student = open_trained(run, saved)
    noises = draw_noises([5, 6, 7], student.backbone.latent_shape(), steps)
    expected = draw_student(open_objective(run), student, student.backbone.encode_text(PROMPTS), noises)
    drawer = open_model(run_folder).drawer(steps)
    assert drawer.name == f"student@{steps}" and drawer.evaluations == steps
    np.testing.assert_array_equal(drawer.draw(PROMPTS, [5, 6, 7]), expected)


def test_student_and_teacher_share_one_set_of_weights_and_do_not_disturb_each_other(run_folder):
    model, stock = open_model(run_folder), embedded()
    student, teacher = model.student(2), model.teacher(4, 3.0)
    first = student.draw(PROMPTS, [1, 2, 3])
    noise = draw_noises([1, 2, 3], stock.latent_shape(), 1)[0]
    velocity = guided(stock, stock.encode_text([""]), 3.0)
    expected = make_pictures(stock, velocity, stock.encode_text(PROMPTS), noise, 4)
    np.testing.assert_allclose(teacher.draw(PROMPTS, [1, 2, 3]), expected, atol=CLOSE)
    assert teacher.evaluations == 8 and teacher.model.backbone is student.model.backbone
    np.testing.assert_array_equal(student.draw(PROMPTS, [1, 2, 3]), first)
    assert np.abs(first - expected).max() > 0.05


def test_a_pipeline_is_its_runs_teacher(run_folder):
    pictures = open_model("scenes", precision="float32").drawer(4, 3.0).draw(PROMPTS, [1, 2, 3])
    np.testing.assert_allclose(pictures, open_model(run_folder).teacher(4, 3.0).draw(PROMPTS, [1, 2, 3]), atol=CLOSE)


@pytest.mark.parametrize("objective", ["apex", "lcm"])
def test_an_exported_lora_draws_what_its_run_drew(tmp_path, objective):
    """Of a renoising objective too: the file itself says so, wherever it is, or the scheduler beside it."""
    folder = finished_run(tmp_path / "run", "scenes", "model.precision=float32", f"objective.name={objective}")
    exported = export_run(folder, "diffusers").folder
    lora = Path(shutil.copy(exported / LORA_FILE, tmp_path))
    save_file(load_file(lora), exported / LORA_FILE)  # as files were exported once
    files = lora, exported / LORA_FILE
    with_lora, former = (open_model("scenes", file, precision="float32").drawer(2) for file in files)
    expected = open_model(folder).drawer(2)
    assert with_lora.renoises == former.renoises == expected.renoises == (objective == "lcm")
    np.testing.assert_allclose(with_lora.draw(PROMPTS, [1, 2, 3]), expected.draw(PROMPTS, [1, 2, 3]), atol=CLOSE)
    teacher = open_model("scenes", precision="float32").teacher(2, 3.0)
    np.testing.assert_allclose(
        with_lora.model.teacher(2, 3.0).draw(PROMPTS, [1, 2, 3]), teacher.draw(PROMPTS, [1, 2, 3]), atol=CLOSE
    )


def test_a_picture_depends_on_its_prompt_and_seed_alone(run_folder):
    model = open_model(run_folder)
    for drawer in (model.student(2), model.teacher(2, 3.0)):
        together = drawer.draw(PROMPTS, [3, 1, 4])
        alone = [drawer.draw([prompt], [seed])[0] for prompt, seed in zip(PROMPTS, [3, 1, 4], strict=True)]
        np.testing.assert_allclose(together, np.stack(alone), atol=CLOSE)
        assert np.abs(drawer.draw(PROMPTS[1:2], [4])[0] - alone[1]).max() > 0.05


def test_settings_tell_models_apart_by_their_weights(run_folder, tmp_path):
    model = open_model(run_folder)
    told = model.student(2).settings()
    assert told["steps"] == 2 and told["guidance"] == 1.0 and told["family"] == "SANA"
    assert told == open_model(run_folder).student(2).settings() != model.student(1).settings()
    scenes = open_model("scenes").identity["weights"]
    assert scenes == open_model("scenes").identity["weights"] != told["weights"]
    file = tmp_path / LORA_FILE
    exported = export_run(run_folder, "diffusers", tmp_path / "out").folder / LORA_FILE
    weights = load_file(exported)
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, file)
    assert hash_weights([file]) != hash_weights([exported])


def test_mistakes_name_what_to_write(run_folder, tmp_path):
    with pytest.raises(ValueError, match="is no run's folder"):
        open_model(tmp_path)
    with pytest.raises(ValueError, match="leave --size out"):
        open_model(run_folder, size=32)
    with pytest.raises(ValueError, match=r"^model\.precision = 'flaot32': input should be 'auto', 'float32' or"):
        open_model(run_folder, precision="flaot32")
    assert open_model(run_folder, precision="bfloat16").identity["precision"] == "bfloat16"
    with pytest.raises(ValueError, match="give a run's folder, or a LoRA with --lora"):
        open_model("scenes").student(1)
    with pytest.raises(ValueError, match="--steps must be at least 1"):
        open_model("scenes").drawer(0)
    with pytest.raises(ValueError, match="--guidance -1"):
        open_model("scenes").drawer(1, -1.0)
