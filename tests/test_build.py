"""The embedded pipeline can be made from nothing: small steps of every stage, resumed, opened by stock diffusers."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from apexgen.backbones.diffusion import load_backbone
from apexgen.generate import draw_noise, make_pictures
from apexgen.scenes.build import Recipe, _untrained_transformer, build_pipeline, parse_recipe
from apexgen.scenes.pipeline import FOLDER, new_autoencoder, new_text_encoder, new_tokenizer
from apexgen.scenes.prompts import captions
from apexgen.scenes.train_autoencoder import train_decoder, training_pictures
from apexgen.scenes.train_text import codes, encode_captions, mismatch, train_text
from small import BUILD


def test_every_stage_leaves_a_pipeline_that_draws(tmp_path):
    recipe = build_pipeline(tmp_path / "tiny", BUILD, None, Console(quiet=True))
    assert recipe == json.loads((tmp_path / "tiny" / "recipe.json").read_text())
    net = load_backbone(tmp_path / "tiny")
    picture = make_pictures(net, net, net.encode_text(["a ring"]), draw_noise([0], net.latent_shape()), 1)
    assert picture.shape == (1, 64, 64, 3) and np.isfinite(picture).all()
    with pytest.raises(ValueError, match="exists already"):
        build_pipeline(tmp_path / "tiny", BUILD, None, Console(quiet=True))


def test_a_pipeline_from_nothing_starts_from_its_seed_whatever_was_drawn_before(tmp_path):
    made = []
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        pipeline = _untrained_transformer(parse_recipe(BUILD), tmp_path / place, lambda line: None)
        parts = pipeline.vae, pipeline.text_encoder, pipeline.transformer
        made.append(torch.cat([weight.flatten() for part in parts for weight in part.parameters()]))
        torch.randn(3)
    assert torch.equal(*made)


def test_the_decoders_own_training_leaves_the_latents_what_they_are():
    vae = new_autoencoder()
    before = copy.deepcopy(vae)
    recipe = parse_recipe(BUILD)
    train_decoder(vae, training_pictures(recipe), recipe, lambda line: None)
    for part, same in (("encoder", True), ("decoder", False)):
        old, new = (torch.cat([w.flatten() for w in getattr(net, part).parameters()]) for net in (before, vae))
        assert torch.equal(old, new) == same, part


def test_a_build_from_a_pipeline_keeps_its_codecs_and_moves_its_transformer(tmp_path):
    build_pipeline(tmp_path / "more", BUILD, Path("scenes"), Console(quiet=True))
    old, new = load_backbone(FOLDER), load_backbone(tmp_path / "more")
    for part in ("vae", "text_encoder"):
        for first, second in zip(*(getattr(b.pipeline, part).parameters() for b in (old, new)), strict=True):
            assert torch.equal(first, second)
    pairs = zip(old.network.parameters(), new.network.parameters(), strict=True)
    assert any(not torch.equal(first, second) for first, second in pairs)
    for file in FOLDER.rglob("*.json"):  # nor do they tell where they were, or what was drawn with them
        if file.name != "recipe.json":
            assert file.read_bytes() == (tmp_path / "more" / file.relative_to(FOLDER)).read_bytes(), file


def test_the_shipped_pipeline_is_small_and_says_how_it_was_made():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) <= 10_000_000
    assert json.loads((FOLDER / "recipe.json").read_text()).keys() >= Recipe.__dataclass_fields__.keys()
    text = "".join(file.read_text() for file in FOLDER.rglob("*.json"))
    assert "_name_or_path" not in text


@pytest.mark.parametrize("override", ["flow_stepz=3", "flow_steps=many", "flow_steps=0"])
def test_a_wrong_setting_is_refused(override):
    with pytest.raises(ValueError, match="flow_step"):
        parse_recipe([override])


def test_codes_are_orthogonal():
    table = codes(0).flatten(0, 1)
    torch.testing.assert_close(table @ table.T, 36 * torch.eye(len(table)), atol=1e-3, rtol=0)


def test_the_text_encoder_learns_its_codes():
    tokenizer = new_tokenizer()
    encoder = new_text_encoder(len(tokenizer))
    batch = encode_captions(captions("colors", held_out=False)[::10], tokenizer, 0)
    before = mismatch(encoder, *batch).item()
    train_text(encoder, tokenizer, 30, 0, lambda line: None)
    assert mismatch(encoder, *batch).item() < 0.7 * before


def test_the_shipped_text_encoder_understands_colors_never_named_with_a_shape():
    net = load_backbone(FOLDER)
    held = encode_captions(captions("colors", held_out=True), net.pipeline.tokenizer, 0)
    with torch.no_grad():
        assert mismatch(net.pipeline.text_encoder, *held) < 0.1 * held[3].square().mean()
