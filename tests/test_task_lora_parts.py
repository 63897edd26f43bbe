"""A user's LoRA of which a part would be lost is refused: a loader tells of it in a log, or not at all."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from apexgen.backbones.task_lora import add_task_lora
from apexgen.export.diffusers import LORA_FILE, export_student
from apexgen.scenes.pipeline import FOLDER
from apexgen.student import Student
from small import backbone, inputs, perturb


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    student = Student(backbone(), "lora", 3, "attention")
    perturb(student, 0.1)
    return export_student(student, FOLDER, tmp_path_factory.mktemp("task") / "export") / LORA_FILE


DOWN = "transformer.transformer_blocks.0.attn1.to_q.lora_A.weight"
UP = DOWN.replace("lora_A", "lora_B")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(UP), f"{UP} is missing; ask for the whole file"),
        (lambda w: w.pop(DOWN), f"{DOWN} is missing; ask for the whole file"),
        (lambda w: w.update({UP: torch.cat([w[UP], w[UP]], 1)}), f"{DOWN} and {UP} are of different ranks"),
        (lambda w: w.update({DOWN: w[DOWN].long()}), f"{DOWN} is of whole numbers"),
        (
            lambda w: w.update({DOWN.replace("lora_A.weight", "lora_magnitude_vector"): w[UP][:, 0].clone()}),
            "no effect",
        ),
    ],
)
def test_a_file_of_which_a_part_would_be_lost_is_one_line_that_names_it(task, tmp_path, caplog, change, message):
    file, weights = tmp_path / "task.safetensors", load_file(task)
    with safe_open(task, framework="pt") as saved:
        metadata = saved.metadata()
    change(weights)
    save_file(weights, file, metadata=metadata)
    with pytest.raises(ValueError) as caught:
        add_task_lora(backbone(), file, "stack")
    text = str(caught.value)
    assert text.startswith(f"{file}: transformer.") and message in text and "\n" not in text
    assert not caplog.records  # the loader's own many lines


def test_the_names_that_diffusers_once_gave_the_factors_are_taken_too(task, tmp_path):
    found = []
    for down, up in (("lora_A", "lora_B"), ("lora.down", "lora.up")):
        renamed = {name.replace("lora_A", down).replace("lora_B", up): w for name, w in load_file(task).items()}
        save_file(renamed, tmp_path / "task.safetensors")
        net = backbone()
        add_task_lora(net, tmp_path / "task.safetensors", "stack")
        x, t, c = inputs(net)
        with torch.no_grad():
            found.append(net(x, t, t, c))
    assert torch.equal(*found)
