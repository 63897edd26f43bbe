"""An adapter agrees with the stock pipeline, and a folder that can't work costs one clear line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from apexgen.backbones.diffusion import load_backbone
from apexgen.generate import draw_noise, make_pictures
from apexgen.scenes.pipeline import FOLDER
from apexgen.shift import scalar
from apexgen.velocities import guided
from small import backbone, inputs


@pytest.fixture(scope="module")
def net():
    return backbone()


@pytest.mark.parametrize("steps", [1, 3])
def test_our_pictures_are_the_stock_pipelines(net, steps):
    prompts = ["a photo of a red circle", "two rings"]
    noise = draw_noise([0, 1], net.latent_shape())
    ours = make_pictures(net, net, net.encode_text(prompts), noise, steps)
    stock = net.pipeline(prompt=prompts, latents=noise, output_type="np", **net.pipeline_arguments(steps, 1.0))
    assert abs(ours - stock.images).max() < 1e-5


def test_our_guidance_is_the_stock_pipelines(net):
    noise = draw_noise([0], net.latent_shape())
    velocity = guided(net, net.encode_text([""]), 3.0)
    ours = make_pictures(net, velocity, net.encode_text(["a blue ring"]), noise, 2)
    stock = net.pipeline(prompt=["a blue ring"], latents=noise, output_type="np", **net.pipeline_arguments(2, 3.0))
    assert abs(ours - stock.images).max() < 1e-5


def test_what_the_mask_hides_does_not_matter(net):
    x, t, c = inputs(net)
    hidden = c.mask == 0
    assert hidden.any()
    noisy = torch.where(hidden[..., None], torch.randn_like(c.embeds), c.embeds)
    torch.testing.assert_close(net(x, t, t, type(c)(noisy, c.mask)), net(x, t, t, c), atol=1e-5, rtol=1e-5)


def test_the_shift_is_visible_to_the_network(net):
    x, t, c = inputs(net)
    real = net(x, t, t, c)
    assert (net(x, t, t, c.shift(scalar(-1.0, 0.0))) - real).abs().mean() > 0.02 * real.abs().mean()


def test_bfloat16_casts_on_its_way_in_and_out(net):
    x, t, c = inputs(net)
    exact = net(x, t, t, c)
    net.precision = torch.bfloat16
    rough = net(x, t, t, c)
    net.precision = None
    assert rough.dtype == x.dtype
    assert 0 < (rough - exact).abs().max() < 0.2


def test_latents_and_pictures_go_round(net):
    from apexgen.generate import to_tensor
    from apexgen.scenes.draw import draw_pictures
    from apexgen.scenes.prompts import draw_captions

    pictures = to_tensor(draw_pictures(draw_captions(2, held_out=False, seed=0), seed=0))
    assert (net.decode(net.encode_image(pictures)) - pictures).abs().mean() < 0.05


@pytest.mark.parametrize("height", [48, 0, 100])
def test_a_size_the_family_does_not_allow_names_the_nearest(net, height):
    if height == 0:
        assert net.latent_shape(height) == net.latent_shape()
    else:
        with pytest.raises(ValueError, match=rf"height = {height}: .*multiple of 32; use \d+"):
            net.latent_shape(height)


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def broken(tmp_path, how):
    folder = tmp_path / "model"
    shutil.copytree(FOLDER, folder)
    how(folder)
    return folder


def write_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def retype(folder, dtype):
    """Save a layer of the transformer in another type."""
    tensors = load_file(folder / WEIGHTS)
    changed = {name: tensor.to(dtype) for name, tensor in tensors.items() if name.endswith("0.attn1.to_q.weight")}
    save_file(tensors | changed, folder / WEIGHTS, metadata={"format": "pt"})


FAULTS = {
    "no such folder": lambda folder: shutil.rmtree(folder),
    "no model_index.json": lambda folder: (folder / "model_index.json").unlink(),
    "model_index.json is broken": lambda folder: (folder / "model_index.json").write_text("{"),
    "has adapters for .*SanaPipeline": lambda folder: write_json(
        folder / "model_index.json", _class_name="StableDiffusionPipeline"
    ),
    "no flow-matching model: its scheduler is DDIMScheduler": lambda folder: write_json(
        folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler"
    ),
    "is cut short: its header has 992 of": lambda folder: (folder / WEIGHTS).write_bytes(
        (folder / WEIGHTS).read_bytes()[:1000]
    ),
    r"to_q\.weight is I8, quantised; give weights of 16 or 32 bits": lambda folder: retype(folder, torch.int8),
    r"to_q\.weight is F8_E5M2, quantised; give": lambda folder: retype(folder, torch.float8_e5m2),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_folder_that_cannot_work_costs_one_line(tmp_path, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_backbone(broken(tmp_path, FAULTS[message]))
    assert "\n" not in str(caught.value)


def test_a_missing_weight_file_costs_one_line(tmp_path):
    def remove(folder):
        (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()

    with pytest.raises(ValueError, match="can't be opened"):
        load_backbone(broken(tmp_path, remove))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_weights_of_several_types_are_all_cast_to_the_one_asked_for(tmp_path, dtype, weights):
    found = load_backbone(broken(tmp_path, lambda folder: retype(folder, dtype)), weights=weights).network.state_dict()
    [changed] = [name for name in found if name.endswith("0.attn1.to_q.weight")]
    for name, tensor in load_backbone(FOLDER).network.state_dict().items():
        expected = tensor.to(dtype) if name == changed else tensor
        assert torch.equal(found[name], expected.to(getattr(torch, weights))), name


def test_a_diffusers_that_can_not_be_imported_costs_one_line(monkeypatch):
    import diffusers

    real = type(diffusers).__getattr__

    def fail(self, name):
        if name != "DiffusionPipeline":
            return real(self, name)
        raise RuntimeError("Failed to import diffusers.pipelines (look up to see its traceback):\nno 'logger'")

    monkeypatch.delattr(diffusers, "DiffusionPipeline", raising=False)
    monkeypatch.setattr(type(diffusers), "__getattr__", fail)
    with pytest.raises(ValueError, match=r"can't be imported \(no 'logger'\); write: pip install -U diffusers"):
        load_backbone(FOLDER)
