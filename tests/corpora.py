"""Six captioned pictures, what encoding them gives and costs, and batches compared."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from apexgen.backbones.diffusion import load_backbone
from apexgen.config import Data
from apexgen.encode import encode
from apexgen.scenes.pipeline import FOLDER

CAPTIONS = ("a red circle", "two rings", "a photo of a white cross", "a blue square", "three rings", "a red ring")
SHAPES = ((64, 64), (32, 128), (70, 66), (128, 32), (40, 160), (64, 60))  # height, width


def write_pictures(folder: Path) -> Path:
    """Six captioned pictures of several shapes."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for place, (caption, shape) in enumerate(zip(CAPTIONS, SHAPES, strict=True)):
        pixels = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
        (folder / f"{place}.txt").write_text(caption)
    return folder


class Counted:
    """Counts what a backbone's encoders are given."""

    def __init__(self, backbone):
        self.texts, self.pictures = [], 0
        text, image = backbone.encode_text, backbone.encode_image

        def encode_text(prompts):
            self.texts += [prompt for prompt in prompts if prompt]  # not the empty one
            return text(prompts)

        def encode_image(pictures):
            self.pictures += len(pictures)
            return image(pictures)

        backbone.encode_text, backbone.encode_image = encode_text, encode_image


def settings(source, **others):
    return Data(**{"source": str(source), "aspect": 4.0} | others)


def encoded(data, pipeline=FOLDER):
    """The corpus, the captions that were encoded for it, and how many pictures."""
    net = load_backbone(pipeline)
    counted = Counted(net)
    corpus = encode(data, net, pictures=True)
    return corpus, sorted(counted.texts), counted.pictures


def same(one, other):
    assert torch.equal(one.x, other.x)
    for name in ("embeds", "mask", "pooled"):
        a, b = getattr(one.c, name), getattr(other.c, name)
        assert (a is None and b is None) or torch.equal(a, b)


def opened(net, source, **others):
    """The corpus of a source of pictures, encoded at the step."""
    return encode(Data(source=str(source), encode="step", **others), net, pictures=True)
