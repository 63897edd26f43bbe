"""Every family's files: damage and an old diffusers cost a line; parts left out or replaced are used as in stock."""

import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from apexgen.backbones.diffusion import load_backbone, open_pipeline
from apexgen.generate import draw_noise, make_pictures
from apexgen.sample import generate
from families import LONG, SHORT, opened
from pipelines import BUILDERS, SIZE


@pytest.fixture(scope="module", params=BUILDERS)
def folder(request, folders):
    return folders[request.param]


def first(tensors):
    return min(name for name in tensors if tensors[name].is_floating_point())


def not_finite(file):
    tensors = load_file(file)
    save_file(tensors | {first(tensors): tensors[first(tensors)] * torch.nan}, file, metadata={"format": "pt"})


def lacking(file):
    tensors = load_file(file)
    tensors.pop(first(tensors))
    save_file(tensors, file, metadata={"format": "pt"})


def quantised(file):
    tensors = load_file(file)
    retyped = tensors[first(tensors)].to(torch.float8_e4m3fn)
    save_file(tensors | {first(tensors): retyped}, file, metadata={"format": "pt"})


def pickled(file):
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()


DAMAGES = {
    r": [\w.-]+ is not finite; fetch it again": not_finite,
    r": [\w.-]+ is missing; fetch it again": lacking,
    r": [\w.-]+ is F8_E4M3, quantised": quantised,
    " can't be opened: .": pickled,
    r" is cut short: \d+ of \d+ bytes": lambda file: file.write_bytes(file.read_bytes()[:-100]),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_weights_cost_one_line_that_names_the_part(folder, tmp_path, message):
    for file in sorted(folder.glob("*/*.safetensors")):
        broken = shutil.copytree(folder, tmp_path / file.parent.name)
        DAMAGES[message](broken / file.relative_to(folder))
        with pytest.raises(ValueError, match=message) as caught:
            load_backbone(broken)
        text = str(caught.value)
        assert text.startswith(str(broken)) and "\n" not in text
        assert DAMAGES[message] is pickled or text.startswith(str(broken / file.parent.name))


def test_text_encoders_fetched_late_are_held_to_the_same(folder, tmp_path):
    for damage, message in ((not_finite, "is not finite"), (lacking, "is missing")):
        broken = shutil.copytree(folder, tmp_path / damage.__name__)
        damage(broken / "text_encoder" / "model.safetensors")
        net = load_backbone(broken, with_text=False)
        with pytest.raises(ValueError, match=message) as caught:
            net.encode_text([SHORT])
        assert str(caught.value).startswith(str(broken / "text_encoder"))


def test_files_in_shards_are_opened_and_held_to_the_same(folders, tmp_path):
    open_pipeline(folders["sd3"]).save_pretrained(tmp_path, max_shard_size="10KB")
    assert torch.equal(
        load_backbone(tmp_path).encode_text([SHORT]).embeds, opened(folders["sd3"]).encode_text([SHORT]).embeds
    )
    for part in ("transformer", "text_encoder_3"):
        file = max((tmp_path / part).glob("*.safetensors"))
        whole = file.read_bytes()
        lacking(file)
        with pytest.raises(ValueError, match=rf"{part}: [\w.]+ is missing; fetch it again"):
            load_backbone(tmp_path)
        file.write_bytes(whole)


def test_an_older_diffusers_is_refused_before_the_weights_are_opened(folders, monkeypatch):
    monkeypatch.setattr("diffusers.__version__", "0.36.1")
    monkeypatch.setattr("apexgen.backbones.diffusion.open_pipeline", pytest.fail)
    with pytest.raises(ValueError, match=r"Qwen-Image needs diffusers 0\.37, here is 0\.36\.1; write: pip install"):
        load_backbone(folders["qwen"])


def test_stable_diffusion_3_without_its_t5_reads_with_clip(folders, tmp_path):
    pipeline = open_pipeline(folders["sd3"])
    pipeline.register_modules(text_encoder_3=None)
    pipeline.save_pretrained(tmp_path)
    net = opened(tmp_path)
    net.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(**net.scheduler_config)
    noise = draw_noise([0], net.latent_shape())
    with torch.no_grad():
        ours = generate(net, net.encode_text([SHORT]), noise, 2)
    stock = net.pipeline(prompt=[SHORT], latents=noise, output_type="latent", **net.pipeline_arguments(2, 1.0)).images
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-5)
    with pytest.warns(UserWarning) as caught:
        net.encode_text([LONG])
    [line] = [str(warning.message) for warning in caught]
    assert line.startswith("1 of 1 prompts cut to 24 tokens; the first")


def test_a_tiny_autoencoder_in_place_of_the_familys_own_is_used_as_the_stock_pipeline_uses_it(folders, tmp_path):
    pipeline = open_pipeline(folders["flux"])
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, latent_channels=4,
        scaling_factor=1.3, shift_factor=0.2,
    )  # fmt: skip
    pipeline.register_modules(vae=tiny)
    pipeline.save_pretrained(tmp_path)
    net = opened(tmp_path)
    net.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(**net.scheduler_config)
    pictures = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    with torch.no_grad():
        plain = tiny.decode(tiny.encode(pictures).latents).sample
        torch.testing.assert_close(net.decode(net.encode_image(pictures)), plain, atol=1e-5, rtol=1e-4)
    noise = draw_noise([0], net.latent_shape())
    ours = make_pictures(net, net, net.encode_text([SHORT]), noise, 1)
    arguments = net.pipeline_arguments(1, 1.0)
    stock = net.pipeline(prompt=[SHORT], latents=net.pack(noise), output_type="np", **arguments).images
    np.testing.assert_allclose(ours, stock, atol=1e-4)
