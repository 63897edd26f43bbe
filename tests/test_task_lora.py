"""On top of a user's LoRA: the teacher is the stock pipeline with it, and so is the student with both."""

import json
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from apexgen.backbones.diffusion import load_backbone, open_pipeline
from apexgen.backbones.task_lora import add_task_lora, load_task_lora
from apexgen.config import dump_run, load_run
from apexgen.distill import open_backbone
from apexgen.export.diffusers import LORA_FILE, export_student
from apexgen.export.run import export_run
from apexgen.generate import draw_noise, make_pictures
from apexgen.scenes.pipeline import FOLDER
from apexgen.student import Student
from apexgen.train import train
from called import apexgen_forked
from pipelines import BUILDERS, SQUARE
from small import EMBEDDED, compare, embedded, perturb, trainer

PROMPTS = ["a red ring", "two blue rings"]


@pytest.fixture(scope="module")
def tasks(folders, tmp_path_factory):
    """The LoRA that a user has, for each pipeline; of other modules and another rank than the student's."""
    root, files = tmp_path_factory.mktemp("tasks"), {}
    for name, folder in {**folders, "scenes": FOLDER}.items():
        student = Student(load_backbone(folder), "lora", 3, "attention+mlp")
        perturb(student, 0.1)
        student.backbone.size = SQUARE
        files[name] = export_student(student, folder, root / name) / LORA_FILE
    return files


@pytest.fixture(params=BUILDERS)
def name(request):
    return request.param


@pytest.fixture
def folder(folders, name):
    return folders[name]


pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # stock diffusers, of two LoRAs


@pytest.fixture(params=["merge", "stack"])
def net(request, folder, tasks, name):
    net = load_backbone(folder)
    net.size = SQUARE
    add_task_lora(net, tasks[name], request.param)
    return net


def inputs(net):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, *net.latent_shape(), generator=generator)
    return x, torch.rand(2, 1, 1, 1, generator=generator), net.encode_text(PROMPTS)


def velocity(net):
    x, t, c = inputs(net)
    return net(x, t, t, c)


@torch.no_grad()
def test_the_teacher_is_the_stock_pipeline_with_the_task(net, folder, tasks, name):
    pipeline = open_pipeline(folder)
    load_task_lora(pipeline, tasks[name])
    stock, plain = type(net)(pipeline), load_backbone(folder)
    x, t, c = inputs(net)
    expected = stock(x, t, t, c)
    before = net(x, t, t, c)
    if net.adapters:
        assert torch.equal(before, expected)
    torch.testing.assert_close(before, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, plain(x, t, t, c), atol=1e-3)
    student = Student(net, "lora", 2, "attention")
    assert torch.equal(student.backbone(x, t, t, c), before)  # its adapter starts at zero
    perturb(student)
    assert torch.equal(student.teacher(x, t, t, c), before)
    assert not torch.allclose(student.backbone(x, t, t, c), before, atol=1e-4)


def test_the_student_alone_trains_and_both_draw_our_picture_in_the_stock_pipeline(net, folder, tmp_path):
    student = Student(net, "lora", 2, "attention")
    assert all(".student." in name for name in student.weights)
    x, t, c = inputs(net)
    net(x, t, t, c).square().mean().backward()
    assert {name for name, weight in net.network.named_parameters() if weight.grad is not None} == set(student.weights)
    perturb(student, 0.1)
    exported = export_student(student, folder, tmp_path / "export")
    assert len(load_file(exported / LORA_FILE)) == len(student.weights)
    noise = draw_noise([0, 1], net.latent_shape())
    assert compare(student, exported, folder, PROMPTS, noise, 1) < 1e-4


@pytest.mark.parametrize("mode", ["merge", "stack"])
def test_a_run_on_top_of_a_task_trains_and_resumes_from_its_own_config(tasks, tmp_path, mode):
    settings = [f"model.lora={tasks['scenes']}", f"model.lora_mode={mode}", "model.precision=float32"]
    (tmp_path / "config.toml").write_text(dump_run(load_run(None, settings)))
    net = open_backbone(load_run(tmp_path / "config.toml"))
    assert net.adapters == (("task",) if mode == "stack" else ())
    c, noise = net.encode_text(PROMPTS), draw_noise([0, 1], net.latent_shape())
    student = Student(net, "lora", 2)
    with_task = make_pictures(net, student.teacher, c, noise, 2)
    plain = make_pictures(net, embedded(), c, noise, 2)
    assert np.abs(with_task - plain).max() > 1e-2


@pytest.mark.parametrize("mode", ["merge", "stack"])
def test_a_merged_pipeline_holds_both(tasks, tmp_path, mode):
    """The export compares the stock pipeline's pictures with the run's, which has the task under it."""
    run = trainer(tmp_path, *EMBEDDED, f"model.lora={tasks['scenes']}", f"model.lora_mode={mode}", "train.steps=2")
    train(run, tmp_path, lambda step, logs: None)
    (tmp_path / "config.toml").write_text(dump_run(run.run))
    assert export_run(tmp_path, "merged").difference < 1e-4
    assert export_run(tmp_path, "diffusers").difference < 1e-4
    card = (tmp_path / "export-diffusers" / "README.md").read_text()
    assert card.index(tasks["scenes"].name) < card.index("set_adapters(['task', 'student'])")


def test_a_fully_tuned_student_holds_the_task_in_its_weights(tasks, tmp_path):
    net = embedded()
    add_task_lora(net, tasks["scenes"], "merge")
    student = Student(net, "full", 0)
    exported = export_student(student, FOLDER, tmp_path / "export")
    assert compare(student, exported, FOLDER, PROMPTS, draw_noise([0, 1], net.latent_shape()), 1) < 1e-4


def saved_by_peft(file, folder, alpha, **told):
    """A user's LoRA as PEFT saves it, of rank 3 and another alpha."""
    weights = {name.replace("transformer.", "base_model.model.", 1): weight for name, weight in load_file(file).items()}
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": alpha, **told}))
    return folder / "adapter_model.safetensors"


@torch.no_grad()
def test_a_file_of_peft_is_taken_at_its_own_scale(folder, tasks, name, tmp_path):
    doubled = {key: weight * (2 if "lora_B" in key else 1) for key, weight in load_file(tasks[name]).items()}
    save_file(doubled, tmp_path / "doubled.safetensors")
    files = [
        saved_by_peft(tasks[name], tmp_path / "a", 6),
        saved_by_peft(tasks[name], tmp_path / "b", 2 * 3**0.5, use_rslora=True),
    ]
    found = []
    for file in (tmp_path / "doubled.safetensors", *files):
        net = load_backbone(folder)
        net.size = SQUARE
        add_task_lora(net, file, "merge")
        found.append(velocity(net))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-5)


def test_the_card_loads_a_file_of_peft_at_its_own_scale(folder, tasks, name, tmp_path, monkeypatch):
    file, net = saved_by_peft(tasks[name], tmp_path / "task", 6), load_backbone(folder)
    net.size = SQUARE
    add_task_lora(net, file, "stack")
    student = Student(net, "lora", 2, "attention")
    perturb(student, 0.1)
    exported = export_student(student, folder, tmp_path / "export")
    shutil.copy(file, exported)
    monkeypatch.chdir(exported)
    code = (exported / "README.md").read_text().split("```")[1].removeprefix("python\n")
    exec(code.replace(repr(folder.name), repr(str(folder))), places := {})
    with student.averaged():
        c, noise = net.encode_text(["a photo of a red circle"]), draw_noise([0], net.latent_shape())
        ours = make_pictures(net, student.backbone, c, noise, 1)[0]
    assert np.abs(np.asarray(places["image"]) / 255 - ours).max() < 0.6 / 255


@pytest.mark.parametrize("told", [None, {"rank_pattern": {"to_q": 8}}])
def test_a_file_of_peft_without_its_scale_is_refused(tasks, tmp_path, told):
    file = saved_by_peft(tasks["scenes"], tmp_path / "task", 6, **(told or {}))
    if told is None:
        (tmp_path / "task" / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"adapter_config\.json") as caught:
        add_task_lora(embedded(), file, "stack")
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def of_another(name, tasks):
    order = [*tasks, *tasks]
    others = [other for other in order[order.index(name) + 1 :] if {other, name} != {"flux", "schnell"}]  # one network
    return tasks[others[0]]


def test_a_lora_of_any_other_family_is_one_line_that_names_it(folder, tasks, name):
    file, net = of_another(name, tasks), load_backbone(folder)
    with warnings.catch_warnings(), pytest.raises(ValueError) as caught:
        warnings.simplefilter("error")
        add_task_lora(net, file, "merge")
    key = re.fullmatch(
        rf"{file}: it is for another model: (\S+) \(\d+, \d+\) has no place in this one", str(caught.value)
    )
    assert key and key[1] in load_file(file)


def test_the_command_says_so_in_its_only_line(folders, tasks, tmp_path):
    words = ("sample", folders["sana"], "--lora", tasks["flux"], "-p", "a ring")
    code, said, wrong = apexgen_forked(tmp_path, *words)
    assert code == 2 and not said
    [line] = wrong.splitlines()
    assert line.startswith(f"apexgen: {tasks['flux']}: it is for another model: transformer.")


def broken(kind, tasks, tmp_path):
    file, weights = tmp_path / "task.safetensors", load_file(tasks["scenes"])
    name = next(iter(weights))
    if kind == "truncated":
        file.write_bytes(tasks["scenes"].read_bytes()[:1000])
    elif kind == "another family":
        return tasks["flux"]
    elif kind == "not finite":
        save_file(weights | {name: weights[name] * float("nan")}, file)
    elif kind == "quantised":
        save_file(weights | {name: weights[name].to(torch.float8_e4m3fn)}, file)
    elif kind == "named otherwise":
        return shutil.copy(tasks["scenes"], tmp_path / "task.st")
    elif kind == "another name":
        save_file({name.replace("blocks.0", "blocks.77"): weight for name, weight in weights.items()}, file)
    elif kind == "a text encoder":
        save_file(weights | {"text_encoder.a.lora_A.weight": weights[name].clone()}, file)
    elif kind == "another prefix":
        save_file({name.replace("transformer.", "unet.", 1): weight for name, weight in weights.items()}, file)
    elif kind == "pickled":
        torch.save(weights, tmp_path / "task.bin")
        return tmp_path / "task.bin"
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("pickled", "is pickled: opening it could run code"),
        ("truncated", "is cut short"),
        ("named otherwise", "diffusers reads a .safetensors file; write"),
        ("quantised", "is F8_E4M3, quantised; give weights of 16 or 32 bits"),
        ("not finite", "not finite"),
        ("another family", "it is for another model: transformer."),
        ("another name", "it is for another model: transformer.transformer_blocks.77."),
        ("a text encoder", "is of a text encoder; give a LoRA of the transformer alone"),
        ("another prefix", "begins otherwise than with transformer."),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tasks, tmp_path, kind, message):
    file = broken(kind, tasks, tmp_path)
    with pytest.raises(ValueError) as caught:
        add_task_lora(embedded(), file, "merge")
    text = str(caught.value)
    assert text.startswith(str(file)) and message in text and "\n" not in text


@torch.no_grad()
@pytest.mark.parametrize("mode", ["merge", "stack"])
def test_a_file_of_several_types_is_cast_to_the_networks(tasks, tmp_path, mode):
    with safe_open(tasks["scenes"], framework="pt") as saved:
        metadata = saved.metadata()
    kinds, found = {"lora_A": torch.bfloat16, "lora_B": torch.float16}, []
    rounded = {name: tensor.to(kinds[name[-13:-7]]) for name, tensor in load_file(tasks["scenes"]).items()}
    for tensors in (rounded, {name: tensor.float() for name, tensor in rounded.items()}):
        save_file(tensors, tmp_path / "task.safetensors", metadata=metadata)
        net = embedded()
        add_task_lora(net, tmp_path / "task.safetensors", mode)
        assert {weight.dtype for weight in net.network.parameters()} == {torch.float32}
        found.append(velocity(net))
    assert torch.equal(*found)
