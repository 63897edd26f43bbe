"""The networks that see: FID's Inception against torch-fidelity's figures, CLIP and DINOv2 folders, resizing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from apexgen.data.picture import decode_picture
from apexgen.evaluate.clip import open_clip
from apexgen.evaluate.features import RESIZES, open_extractor, pixels, to_inception
from apexgen.evaluate.gallery import open_picture
from apexgen.evaluate.inception import CLASSES, Inception, load_inception, with_weights
from vision import clip_folder, dino_folder


@pytest.fixture(scope="module")
def weights():
    """An Inception's weights: random, of a size that lets the last features differ."""
    network, generator = Inception(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 4:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (2 / weight[0].numel()) ** 0.5)
            elif name.endswith("weight"):
                weight.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        for name, value in network.named_buffers():
            if "mean" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
            elif "var" in name:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return network.state_dict() | {"fc.weight": torch.zeros(CLASSES, 2048), "fc.bias": torch.zeros(CLASSES)}


@pytest.fixture(scope="module")
def inception_file(weights, tmp_path_factory):
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(weights, file)
    return file


# What torch-fidelity 0.4.0's FeatureExtractorInceptionV3 says, given these weights and this picture.
FIDELITYS = [0.30717859, 6.75677967, 0.28726298, 2.23375320, 0.0, 1.65664077]
FIDELITYS_MEAN, FIDELITYS_DEVIATION = 3.06324625, 4.30597925


def test_the_inception_is_torch_fidelitys(inception_file):
    generator = torch.Generator().manual_seed(1)
    picture = torch.randint(0, 256, (1, 3, 299, 299), generator=generator).to(torch.uint8)
    features = load_inception(inception_file)((picture.float() - 128) / 128)[0]
    assert features[:6].tolist() == pytest.approx(FIDELITYS, rel=1e-4)
    assert float(features.mean()) == pytest.approx(FIDELITYS_MEAN, rel=1e-5)
    assert float(features.std()) == pytest.approx(FIDELITYS_DEVIATION, rel=1e-5)


def test_its_parameters_are_as_many_as_the_papers():
    # Keras' InceptionV3 without its top has 21,768,352 to train and no scale in its 94 batch norms, of 17,216 channels.
    assert sum(weight.numel() for weight in Inception().parameters()) == 21_768_352 + 17_216


def test_the_file_may_be_safetensors_and_is_named_by_its_hash(weights, inception_file, tmp_path):
    save_file(weights, tmp_path / "weights.safetensors")
    one, other = open_extractor(inception_file), open_extractor(tmp_path / "weights.safetensors")
    picture = Image.effect_noise((50, 40), 64).convert("RGB")
    assert torch.equal(one([picture]), other([picture]))
    assert one.identity["weights"] != other.identity["weights"] and len(one.identity["weights"]) == 16


REFUSED = {
    "the ImageNet classifier": lambda w: w | {"fc.weight": torch.zeros(1000, 2048)},
    "AuxLogits": lambda w: w | {"AuxLogits.fc.weight": torch.zeros(1)},
    "Mixed_7c.branch1x1.conv.weight": lambda w: {k: v for k, v in w.items() if k != "Mixed_7c.branch1x1.conv.weight"},
    "stranger": lambda w: w | {"stranger": torch.zeros(1)},
    "size mismatch": lambda w: w | {"Conv2d_1a_3x3.bn.bias": torch.zeros(31)},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_other_weights_are_refused_in_a_line(weights, reason):
    said = "the ImageNet classifier" if reason == "AuxLogits" else reason
    with pytest.raises(ValueError, match=said) as caught:
        with_weights(REFUSED[reason](weights), "w.pth")
    assert "\n" not in str(caught.value)


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (tmp_path.joinpath("run").touch, ())

    torch.save({"fc.weight": Hostile()}, tmp_path / "w.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 cut")
    for name in ("w.pth", "broken.pth"):
        with pytest.raises(ValueError, match="no weights that can be read safely"):
            open_extractor(tmp_path / name)
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_named_with_where_it_comes_from(tmp_path):
    for path in (None, tmp_path / "absent.pth"):
        with pytest.raises(
            ValueError, match=r"download https://github.com/mseitzer/pytorch-fid/\S+\.pth and write --features"
        ):
            open_extractor(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"lacks config.json"):
        open_extractor(tmp_path / "empty")


@pytest.mark.parametrize("resize", RESIZES)
def test_every_resize_keeps_a_flat_picture_and_one_of_the_right_size(resize):
    flat = to_inception(Image.new("RGB", (50, 70), (0, 128, 255)), resize)
    assert flat.shape == (3, 299, 299)
    assert torch.allclose(flat.flatten(1).mean(dim=1), torch.tensor([-1.0, 0.0, 1.0]), atol=0.01)
    assert float(flat.flatten(1).std(dim=1).max()) < 1e-6
    pixel = np.random.default_rng(0).integers(0, 256, (299, 299, 3), dtype=np.uint8)
    same = to_inception(Image.fromarray(pixel), resize)
    assert torch.allclose(same, torch.from_numpy(pixel).permute(2, 0, 1) / 127.5 - 1, atol=0.01)


def test_resizes_differ_where_a_picture_shrinks():
    stripes = np.zeros((598, 598, 3), np.uint8)
    stripes[:, ::2] = 255
    small = {resize: to_inception(Image.fromarray(stripes), resize) for resize in RESIZES}
    assert all(float(small[resize][..., 5:-5].abs().max()) < 0.1 for resize in ("clean-fid", "torchmetrics"))  # grey
    fine = np.zeros((900, 900, 3), np.uint8)
    fine[:, 1::3] = 255  # a third is white
    assert float(to_inception(Image.fromarray(fine), "pytorch-fid").std()) > 0.4
    seen = to_inception(Image.fromarray(fine), "clean-fid")[..., 5:-5]
    assert float(seen.std()) < 0.1 and float(seen.mean()) == pytest.approx(-1 / 3, abs=0.02)


def test_clip_and_dino_folders_see_as_transformers_does(tmp_path):
    from transformers import AutoModel

    picture = Image.effect_noise((40, 50), 64).convert("RGB")
    clip, dino = open_extractor(clip_folder(tmp_path / "clip")), open_extractor(dino_folder(tmp_path / "dino"))
    mean, deviation = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    side = picture.resize((32, 40), Image.Resampling.BICUBIC).crop((0, 4, 32, 36))
    given = (np.asarray(side) / 255 - mean) / deviation
    given = torch.from_numpy(given).permute(2, 0, 1)[None].float()
    network = AutoModel.from_pretrained(tmp_path / "clip").eval()
    pooled = network.vision_model(given).pooler_output
    assert torch.allclose(clip([picture]), network.visual_projection(pooled), atol=1e-4)
    token = AutoModel.from_pretrained(tmp_path / "dino").eval()(given).last_hidden_state[:, 0]
    assert torch.allclose(dino([picture]), token, atol=1e-4)
    assert clip.identity["features"] == "clip clip" and dino.identity["features"] == "dinov2 dino"
    with pytest.raises(ValueError, match="leave --resize out"):
        open_extractor(tmp_path / "clip", "clean-fid")
    with pytest.raises(ValueError, match="--resize lanczos: write one of clean-fid"):
        open_extractor(tmp_path / "clip", "lanczos")


def test_a_repository_that_was_downloaded_stands_for_its_folder(tmp_path, monkeypatch):
    revision = "0" * 40
    clip_folder(tmp_path / "models--me--clip" / "snapshots" / revision)
    (tmp_path / "models--me--clip" / "refs").mkdir()
    (tmp_path / "models--me--clip" / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    extractor = open_extractor(Path("me/clip"))
    assert extractor.identity["features"] == "clip clip" and open_clip(Path("me/clip")).identity == extractor.identity
    with pytest.raises(ValueError, match="--clip me/other is not on this machine; run: hf download me/other"):
        open_clip(Path("me/other"))


def test_pictures_of_every_mode_and_size_are_read(tmp_path):
    grey16 = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    odd = {
        "grey.png": Image.new("L", (20, 30), 200),
        "sixteen.png": Image.fromarray(grey16),
        "alpha.png": Image.new("RGBA", (20, 30), (10, 20, 30, 0)),
        "palette.png": Image.new("P", (9, 9)),
        "cmyk.jpg": Image.new("CMYK", (9, 9)),
        "one.png": Image.new("1", (9, 9)),
        "pixel.png": Image.new("RGB", (1, 1), "red"),
        "thin.png": Image.new("RGB", (1, 3000)),
        "huge.png": Image.new("RGB", (3000, 2000)),
    }
    for name, picture in odd.items():
        picture.save(tmp_path / name)
        opened = open_picture(tmp_path / name)
        assert opened.mode == "RGB" and opened.size == picture.size
        assert to_inception(opened, "clean-fid").isfinite().all()
        assert pixels()([opened]).shape == (1, 3 * 32 * 32)
    ramp = np.asarray(open_picture(tmp_path / "sixteen.png"))[..., 0].astype(float)
    assert ramp == pytest.approx(grey16 / 257, abs=0.5)
    for name in odd:  # as they are trained on
        seen = np.asarray(open_picture(tmp_path / name), dtype=np.float32) / 255
        np.testing.assert_array_equal(seen, decode_picture((tmp_path / name).read_bytes()))
    assert open_picture(tmp_path / "alpha.png").getextrema() == ((255, 255),) * 3


BROKEN = {"text": b"hello", "cut": None, "empty": b""}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_corrupted_picture_is_named(tmp_path, kind):
    file = tmp_path / "a.png"
    Image.effect_noise((64, 64), 99).save(file)
    file.write_bytes(file.read_bytes()[:900] if BROKEN[kind] is None else BROKEN[kind])
    with pytest.raises(ValueError, match=r"a\.png: no picture that can be read .* mend or remove it"):
        open_picture(file)
