"""Every family: our steps, pictures and texts are the stock pipeline's. A new one joins by a builder."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from apexgen.backbones.diffusion import BACKBONES
from apexgen.backbones.two_times import give_second_time
from apexgen.condition import Condition
from apexgen.config.data import Data
from apexgen.encode.start import open_stores
from apexgen.generate import draw_noise, make_pictures
from apexgen.sample import generate
from apexgen.shift import scalar
from apexgen.size import Size
from apexgen.velocities import guided
from families import LONG, SHORT, inputs, opened
from pipelines import BUILDERS, SIZE

PLAIN_GUIDANCE = ("sd3", "flux", "schnell", "lumina2", "zimage", "sana")  # the stock Qwen-Image rescales what is guided


@pytest.fixture(scope="module", params=BUILDERS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(folders, family):
    return folders[family]


@pytest.fixture(scope="module")
def net(folder):
    """One for the tests that leave it as it was, with the scheduler that is exported."""
    net = opened(folder)
    net.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(**net.scheduler_config)
    return net


def test_every_family_is_here():
    assert {builder().__class__.__name__ for builder in BUILDERS.values()} == set(BACKBONES)


@torch.no_grad()
@pytest.mark.parametrize("prompts", [[SHORT], [SHORT, LONG]])
@pytest.mark.parametrize("steps", [1, 4])
def test_our_steps_are_the_stock_pipelines(net, steps, prompts):
    noise = draw_noise(range(len(prompts)), net.latent_shape())
    ours = generate(net, net.encode_text(prompts), noise, steps)
    stock = net.pipeline(
        prompt=list(prompts), latents=net.pack(noise), output_type="latent", **net.pipeline_arguments(steps, 1.0)
    ).images
    torch.testing.assert_close(net.pack(ours), stock, atol=1e-5, rtol=1e-5)
    assert (ours - noise).abs().mean() > 0.01


def test_our_picture_is_the_stock_pipelines(net):
    noise = draw_noise([0, 1], net.latent_shape())
    ours = make_pictures(net, net, net.encode_text([SHORT, LONG]), noise, 4)
    stock = net.pipeline(
        prompt=[SHORT, LONG], latents=net.pack(noise), output_type="np", **net.pipeline_arguments(4, 1.0)
    ).images
    assert ours.shape == (2, SIZE, SIZE, 3) and ours.std() > 0.01
    assert np.abs(ours - stock).max() < 1e-5


@pytest.mark.parametrize("size", [Size(32, 64), Size(96, 64)], ids=str)
def test_a_picture_that_is_no_square_is_the_stock_pipelines(net, monkeypatch, size):
    monkeypatch.setattr(net, "size", size)
    noise = draw_noise([0, 1], net.latent_shape())
    ours = make_pictures(net, net, net.encode_text([SHORT, LONG]), noise, 4)
    stock = net.pipeline(
        prompt=[SHORT, LONG], latents=net.pack(noise), output_type="np", **net.pipeline_arguments(4, 1.0)
    ).images
    assert ours.shape == (2, *size, 3) and ours.std() > 0.01
    assert np.abs(ours - stock).max() < 1e-5


def test_our_guidance_is_the_stock_pipelines(net, family):
    if family not in PLAIN_GUIDANCE:
        pytest.skip("the stock pipeline rescales what is guided")
    noise = draw_noise([0], net.latent_shape())
    ours = generate(guided(net, net.encode_text([""]), 3.0), net.encode_text([SHORT]), noise, 2)
    stock = net.pipeline(
        prompt=[SHORT], latents=net.pack(noise), output_type="latent", **net.pipeline_arguments(2, 3.0)
    ).images
    torch.testing.assert_close(net.pack(ours), stock, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_neither_a_longer_neighbour_nor_padding_matters(net):
    x, t, c = inputs(net)
    alone = net.encode_text([SHORT])
    beside = net(x, t, t, c)[:1]
    torch.testing.assert_close(net(x[:1], t[:1], t[:1], alone), beside, atol=1e-5, rtol=1e-5)
    chunks = net.encode_text_in_chunks([SHORT, LONG], 1)
    assert torch.equal(chunks.mask, c.mask)
    torch.testing.assert_close(net(x, t, t, chunks)[:1], beside, atol=1e-5, rtol=1e-5)
    hidden = ~c.mask.bool()
    noisy = Condition(torch.where(hidden[..., None], torch.randn_like(c.embeds), c.embeds), c.mask, c.pooled)
    torch.testing.assert_close(net(x, t, t, noisy)[:1], beside, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_shift_is_visible_in_each_part_of_the_condition(net):
    x, t, c = inputs(net)
    real, fake = net(x, t, t, c), c.shift(scalar(-1.0, 0.5))
    parts = [fake, Condition(fake.embeds, c.mask, c.pooled)]
    if c.pooled is not None:
        parts.append(Condition(c.embeds, c.mask, fake.pooled))
    for part in parts:
        assert (net(x, t, t, part) - real).abs().mean() > 1e-4 * real.abs().mean()


def test_the_autoencoder_is_used_with_the_familys_own_scale(net):
    pictures = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    latents = net.encode_image(pictures)
    assert latents.shape[1:] == net.latent_shape()
    vae, frames = net.pipeline.vae, pictures.unsqueeze(2) if net.family == "Qwen-Image" else pictures
    with torch.no_grad():
        encoded = vae.encode(frames)
        plain = vae.decode(encoded.latent if net.family == "SANA" else encoded.latent_dist.mode()).sample
    torch.testing.assert_close(net.decode(latents), plain.view_as(pictures), atol=1e-5, rtol=1e-4)


def test_a_prompt_that_is_too_long_is_cut_as_the_stock_pipeline_does_with_a_line_that_names_what_is_lost(
    net, capsys, caplog
):
    long = "ring " * (net.max_tokens - 1) + "two blue squares"
    with pytest.warns(UserWarning) as caught:
        c = net.encode_text([SHORT, long])
    assert not capsys.readouterr().err and not caplog.records  # the libraries' own notices
    [line] = [str(warning.message) for warning in caught]
    assert re.match(rf"1 of 2 prompts cut to {net.max_tokens} tokens; the first, of \d+, loses '.*(squares|ring)", line)
    noise = draw_noise([0, 1], net.latent_shape())
    stock = net.pipeline(
        prompt=[SHORT, long], latents=net.pack(noise), output_type="latent", **net.pipeline_arguments(1, 1.0)
    ).images
    torch.testing.assert_close(net.pack(generate(net, c, noise, 1)), stock, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["sd3", "flux"], indirect=True)
def test_a_prompt_that_clip_alone_cuts_is_told_apart_and_once(net):
    by_all = "ring " * net.max_tokens
    with pytest.warns(UserWarning) as caught:
        net.encode_text([SHORT, LONG])
        net.encode_text([SHORT, by_all])
    lines = [str(warning.message) for warning in caught]
    assert len(lines) == 2 and "\n" not in lines[0]
    assert re.match(
        r"1 of 2 prompts cut to 24 tokens by CLIP alone, which makes the pooled vector; the first, of \d+, loses '.*sq",
        lines[0],
    )
    assert re.match(rf"1 of 2 prompts cut to {net.max_tokens} tokens; the first", lines[1])


@torch.no_grad()
def test_sana_reads_what_a_stock_call_left_to_its_defaults_gives_the_network(folders):
    net, seen = opened(folders["sana"]), []
    hook = net.network.register_forward_pre_hook(lambda module, args, told: seen.append(told), with_kwargs=True)
    size = {"height": SIZE, "width": SIZE, "use_resolution_binning": False}  # which has no bins for one so small
    for scale in (4.5, 1.0):
        net.pipeline(LONG, num_inference_steps=1, guidance_scale=scale, output_type="latent", **size)
    hook.remove()
    rows = [list(zip(told["encoder_hidden_states"], told["encoder_attention_mask"], strict=True)) for told in seen]
    [null, guided], [alone] = rows
    both, one, none = (net.encode_text(prompts) for prompts in ([LONG, ""], [LONG], [""]))
    for c, row, (embeds, mask) in ((both, 0, guided), (both, 1, null), (one, 0, alone), (none, 0, null)):
        torch.testing.assert_close(c.embeds[row], embeds, atol=1e-5, rtol=1e-5)
        assert torch.equal(c.mask[row], mask)
    without, _, _, _ = net.pipeline.encode_prompt([LONG], do_classifier_free_guidance=False)
    assert not torch.allclose(without[0], guided[0], atol=1e-3)
    assert "complex_human_instruction" not in net.pipeline_arguments(1, 1.0)


def test_sana_goes_without_its_instruction_where_the_tokenizer_has_no_room_for_it(folders, tmp_path):
    net = opened(folders["sana"])
    with_it = open_stores(Data(cache=str(tmp_path)), net, False).names()
    net.pipeline.tokenizer.model_max_length = 400
    assert net.max_tokens == 300 and net.instruction is None
    assert net.pipeline_arguments(1, 1.0)["complex_human_instruction"] is None
    plain, _, _, _ = net.pipeline.encode_prompt([LONG], do_classifier_free_guidance=False)
    assert torch.equal(net.encode_text([LONG]).embeds, plain)
    assert open_stores(Data(cache=str(tmp_path)), net, False).names() != with_it  # encoded anew


def test_a_size_the_family_does_not_allow_names_the_nearest(net):
    for height in (SIZE + 1, SIZE - 2, 3):
        with pytest.raises(
            ValueError,
            match=rf"size = '64x{height}': {net.family} wants multiples of {net.size_multiple}.*; write --size \d+",
        ):
            net.latent_shape(height)
    assert net.latent_shape(SIZE, SIZE // 2) == (net.latent_shape()[0], 8, 4)


def test_a_second_time_is_silent_at_the_start_and_read_once_trained(folder, net):
    x, t, c = inputs(net)
    two = opened(folder)
    give_second_time(two)
    with torch.no_grad():
        expected = net(x, t, t, c)
        assert torch.equal(two(x, t, t / 2, c), expected)
        two.second.last.weight.normal_()
        assert torch.equal(two(x, t, t, c), expected)
        assert not torch.allclose(two(x, t, t / 2, c), expected, atol=1e-4)


@torch.no_grad()
def test_bfloat16_casts_on_its_way_in_and_out(folder, net):
    x, t, c = inputs(net)
    rough, exact = opened(folder), net(x, t, t, c)
    rough.precision = torch.bfloat16
    found = rough(x, t, t, c)
    assert found.dtype == x.dtype
    assert 0 < (found - exact).norm() < 0.1 * exact.norm()


def test_a_norm_in_half_precision_says_nothing_that_no_user_can_act_on():
    code = (
        "import torch, apexgen.backbones.quiet as quiet; {}"
        "torch.nn.functional.rms_norm(torch.ones(2, 4, dtype=torch.bfloat16), (4,), torch.ones(4))"
    )
    for said, first in ((True, ""), (False, "quiet.silence_libraries(); ")):
        ended = subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True)
        assert ("Mismatch dtype" in ended.stderr) == said


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "largest"), [("sd3", 128), ("lumina2", 8192), ("zimage", 1024)], indirect=["family"]
)
def test_some_families_have_places_up_to_a_size(net, largest):
    """Which they draw, and beyond which there is a line in place of an index that is out of bounds."""
    x = torch.randn(1, *net.latent_shape(32, largest))
    t = torch.ones(1, 1, 1, 1)
    assert net(x, t, t, net.encode_text([SHORT])).shape == x.shape
    for height, width in ((32, largest + 16), (largest + 16, 32)):
        with pytest.raises(
            ValueError, match=rf"size = '{width}x{height}': .* of 16 up to {largest}; write --size .*{largest}"
        ):
            net.latent_shape(height, width)


def test_a_models_own_size_must_be_one_that_the_family_allows(folders):
    net = opened(folders["flux"])
    for size, nearest in (
        (50, "48, or model.size = 48"),
        ("50x64", '48x64, or model.size = "48x64"'),
        ("3x64", '16x64, .*"'),
    ):
        net.size = Size.read(size)
        with pytest.raises(
            ValueError, match=rf"^size = {size!r}: FLUX\.1 wants multiples of 16; write --size {nearest}$"
        ):
            net.latent_shape()
    net.size = None
    assert net.latent_shape() == (4, 128, 128)
