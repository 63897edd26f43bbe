"""The color of a thing by CLIP: its cut-out on grey beside the ten colors in words.

Radford et al., https://arxiv.org/abs/2103.00020; templates, background and crop as GenEval has them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from apexgen.evaluate.geneval.detect import Detection
from apexgen.evaluate.weights import open_judge, open_processor
from apexgen.rules import COLORS

TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
BACKGROUND = "#999"
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ColorJudge(Protocol):
    """A judge of colors."""

    name: str  # in full

    def colors(self, picture: Image.Image, name: str, things: Sequence[Detection]) -> list[str]:
        """The color of each thing, which are of the class `name`."""
        ...


class Clip:
    """Zero-shot among COLORS: the class of a color is the normalised mean of its templates' embeddings."""

    def __init__(self, folder: Path, name: str, device: str) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.network = open_judge(CLIPModel, folder, device)
        self.tokenizer = open_processor(CLIPTokenizer, folder)
        self.name = f"{name} (transformers)"
        self._classes: dict[str, Tensor] = {}

    def colors(self, picture: Image.Image, name: str, things: Sequence[Detection]) -> list[str]:
        side = self.network.config.vision_config.image_size
        pixels = torch.stack([to_pixels(cut_out(picture, thing), side) for thing in things])
        with torch.no_grad():
            seen = self.network.get_image_features(pixel_values=pixels.to(self.network.device)).pooler_output
        likeness = normalize(seen, dim=-1) @ self._class_vectors(name).T
        return [COLORS[index] for index in likeness.argmax(-1).tolist()]

    @torch.no_grad()
    def _class_vectors(self, name: str) -> Tensor:
        """(colors, D), kept for each class."""
        if name not in self._classes:
            texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
            tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.network.device)
            vectors = normalize(self.network.get_text_features(**tokens).pooler_output, dim=-1)
            self._classes[name] = normalize(vectors.unflatten(0, (len(COLORS), len(TEMPLATES))).mean(1), dim=-1)
        return self._classes[name]


def cut_out(picture: Image.Image, thing: Detection) -> Image.Image:
    """The thing's box; all that its mask leaves out is grey. Without a mask the box is as it is."""
    image = picture.convert("RGB")
    if thing.mask is not None:
        image = Image.composite(image, Image.new("RGB", image.size, BACKGROUND), Image.fromarray(thing.mask))
    left, top, right, bottom = (round(end) for end in thing.box)
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def to_pixels(image: Image.Image, side: int) -> Tensor:
    """CLIP's input (3, side, side): the shorter side scaled to `side`, bicubic, the middle of it, normalised."""
    width, height = (side * length // min(image.size) for length in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    scaled = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
    values = (np.asarray(scaled, dtype=np.float32) / 255 - MEAN) / DEVIATION
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)
