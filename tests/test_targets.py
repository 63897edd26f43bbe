"""What a preset adapts in each family, held against what diffusers calls its modules."""

import pytest

from apexgen.backbones.base import ATTENTION, TEXT_ATTENTION
from apexgen.backbones.diffusion import load_backbone
from apexgen.backbones.targets import lora_names
from apexgen.backbones.two_times import give_second_time
from apexgen.config import PRESETS
from apexgen.export.diffusers import export_student
from apexgen.generate import draw_noise
from apexgen.student import Student
from pipelines import BUILDERS, SQUARE
from small import backbone, compare, perturb

PROMPTS = ["a red ring", "two blue rings"]
OUTSIDE = ("proj_out", "norm_out", "time_", "t_embedder", "caption_projection", "all_", "txt_in", "img_in")
MLP = {
    "sd3": "transformer_blocks.0.ff_context.net.2",
    "flux": "single_transformer_blocks.1.proj_mlp",
    "schnell": "single_transformer_blocks.1.proj_out",
    "qwen": "transformer_blocks.0.img_mlp.net.0.proj",
    "lumina2": "context_refiner.0.feed_forward.linear_3",
    "zimage": "noise_refiner.0.feed_forward.w1",
    "sana": "transformer_blocks.1.ff.conv_point",
}


@pytest.fixture(scope="module", params=MLP)
def name(request):
    return request.param


@pytest.fixture
def net(folders, name):
    net = load_backbone(folders[name])
    net.size = SQUARE
    return net


def test_every_family_is_here():
    assert MLP.keys() == BUILDERS.keys()


def test_each_preset_holds_the_one_before(net, name):
    attention, mlp, every = (set(lora_names(net, preset)) for preset in PRESETS)
    assert attention and all(module.endswith((*ATTENTION, *TEXT_ATTENTION)) for module in attention)
    assert MLP[name] in mlp and attention < mlp < every
    assert not any(module.startswith(OUTSIDE) for module in mlp) and any(m.startswith(OUTSIDE) for m in every)
    assert lora_names(net, ()) == net.lora_targets


def test_a_student_trains_just_these(net, name):
    student = Student(net, "lora", 2, "attention+mlp")
    trained = {weight.partition(".lora_")[0] for weight in student.weights}
    expected = set(student.targets) - set(net.lora_excluded)
    assert trained == expected and MLP[name] in trained


def test_a_student_of_every_linear_module_opens_in_the_stock_pipeline(net, name, folders, tmp_path):
    folder = folders[name]
    student = Student(net, "lora", 2, "all-linear")
    perturb(student, 0.02)
    exported = export_student(student, folder, tmp_path / "export")
    assert compare(student, exported, folder, PROMPTS, draw_noise([0, 1], net.latent_shape()), 1) < 1e-4


def test_a_second_time_is_trained_itself_and_adapted_by_no_preset():
    net = backbone()
    give_second_time(net)
    student = Student(net, "lora", 2, "all-linear")
    names = [name for name in student.weights if name.startswith("second_time.")]
    assert names and not any("lora_" in name for name in names)


@pytest.mark.parametrize("name", ["sd3", "qwen"], indirect=True)
def test_a_name_that_fits_just_what_gets_no_gradient_is_refused(net):
    for unread in net.lora_excluded:
        for targets in ((unread,), ("to_k", unread)):
            with pytest.raises(ValueError, match=rf'model\.targets: "{unread}" gets no gradient: {net.family} reads'):
                Student(net, "lora", 2, targets)
    assert Student(net, "lora", 2, ("add_q_proj",)).weights


def test_a_name_that_fits_nothing_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r'model\.targets: "to_qq" fits no linear module of SANA; write "to_q"'):
        Student(backbone(), "lora", 2, ("to_k", "to_qq"))
    with pytest.raises(ValueError, match=r'"attn1\.to_out" fits .*; write "attn1\.to_out\.0"'):
        Student(backbone(), "lora", 2, ("attn1.to_out",))
    assert Student(backbone(), "lora", 2, ("to_q", "attn2.to_k")).targets == ("to_q", "attn2.to_k")
