"""Networks that turn pictures into features: FID's Inception from a file, or transformers' vision models from a folder.

Each says what a result must record of it: its name, the hash of its weights, and how it resizes.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from apexgen.evaluate import inception
from apexgen.evaluate.weights import find_weights, name_of, open_judge, open_processor

RESIZES = ("clean-fid", "torchmetrics", "pytorch-fid")  # whose way; their FIDs differ by some tenths
OWN = "its own processor"  # of a vision model
PIXELS = 32  # a side of the pictures that `pixels` compares
FILES = (".pth", ".safetensors")  # of an Inception
SETTINGS = ("config.json", "preprocessor_config.json")  # beside the weights, what a vision model's features depend on


@dataclass(frozen=True)
class Extractor:
    """Pictures to features (B, width), with all that tells one way from another."""

    name: str  # such as "Inception 2015-12-05"
    weights: str  # SHA-256 of the weights, 16 digits; empty for none
    resize: str
    run: Callable[[Sequence[Image.Image]], Tensor] = field(repr=False)

    @property
    def identity(self) -> dict[str, str]:
        """What a result records, and what cached features are kept by."""
        return {"features": self.name, "weights": self.weights, "resize": self.resize}

    def __call__(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Features (B, width) float32, on the CPU, of RGB pictures of any sizes."""
        with torch.no_grad():
            return self.run(pictures).float().cpu()


def open_extractor(path: Path | None, resize: str | None = None, device: str | torch.device = "cpu") -> Extractor:
    """The network that a file or a folder holds; nothing is downloaded.

    Raises ValueError, one line, where there is none, it is broken, or `resize` is none of RESIZES or has no effect.
    """
    if resize is not None and resize not in RESIZES:
        raise ValueError(f"--resize {resize}: write one of {', '.join(RESIZES)}")
    if path is None or (path.suffix in FILES and not path.exists()):
        missing = "--features is missing" if path is None else f"--features {path}: no such file"
        raise ValueError(f"{missing}; download {inception.SOURCE} and write --features PATH/TO/{inception.WEIGHTS}")
    if path.is_file():
        return _open_inception(path, resize or RESIZES[0], device)
    if resize is not None:
        raise ValueError(f"--resize is of the Inception; {path} has a processor that resizes: leave --resize out")
    return open_vision_model("--features", path, "facebook/dinov2-base", device)


def pixels() -> Extractor:
    """The pictures themselves, 32 x 32: for a comparison without weights. Distances are of shares of the brightness."""

    def run(pictures: Sequence[Image.Image]) -> Tensor:
        small = [np.asarray(picture.resize((PIXELS, PIXELS), Image.Resampling.BOX)) for picture in pictures]
        return torch.from_numpy(np.stack(small)).flatten(1) / 255

    return Extractor("pixels", "", f"mean over boxes to {PIXELS}", run)


def hash_files(files: Sequence[Path]) -> str:
    """SHA-256 of files' names and contents, its first 16 digits."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            total.update(file.name.encode() + hashlib.file_digest(opened, "sha256").digest())
    return total.hexdigest()[:16]


def _open_inception(file: Path, resize: str, device: str | torch.device) -> Extractor:
    network = inception.load_inception(file).to(device)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]

    def run(pictures: Sequence[Image.Image]) -> Tensor:
        return network(torch.stack([to_inception(picture, resize) for picture in pictures]).to(device))

    return Extractor("Inception 2015-12-05", digest, resize, run)


def to_inception(picture: Image.Image, resize: str) -> Tensor:
    """A picture as the network's (3, 299, 299) about [-1, 1], resized the way of one of RESIZES.

    clean-fid: bicubic, antialiased, each channel in floats (Parmar et al., https://arxiv.org/abs/2104.11222).
    torchmetrics: bilinear, antialiased. pytorch-fid: bilinear, which aliases what it shrinks.
    """
    size = (inception.SIZE, inception.SIZE)
    channels = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    if resize == "clean-fid":
        floats = [Image.fromarray(channel.astype(np.float32)) for channel in channels]
        small = torch.from_numpy(np.stack([np.asarray(c.resize(size, Image.Resampling.BICUBIC)) for c in floats]))
        return (small - 128) / 128
    pixel = torch.from_numpy(channels.astype(np.float32))[None]
    if resize == "torchmetrics":
        small = nn.functional.interpolate(pixel, size=size, mode="bilinear", align_corners=False, antialias=True)
        return (small[0] - 128) / 128
    return nn.functional.interpolate(pixel / 255, size=size, mode="bilinear", align_corners=False)[0] * 2 - 1


def open_vision_model(
    option: str, path: Path, usual: str, device: str | torch.device, beside: Sequence[str] = ()
) -> Extractor:
    """The network of a vision model's folder, or of a repository that was downloaded; ValueError for what is none."""
    from transformers import AutoImageProcessor, AutoModel

    folder = find_weights(option, str(path), usual, (*SETTINGS, *beside))
    network = open_judge(AutoModel, folder, device)
    processor = open_processor(AutoImageProcessor, folder)

    def run(pictures: Sequence[Image.Image]) -> Tensor:
        given = processor(images=list(pictures), return_tensors="pt").to(device)
        return picture_features(network, given)

    files = [*(folder / name for name in SETTINGS), *sorted(folder.glob("*.safetensors"))]
    return Extractor(f"{network.config.model_type} {name_of(str(path))}", hash_files(files), OWN, run)


def picture_features(network: Any, given: Any) -> Tensor:
    """What a vision model says of whole pictures, (B, width): CLIP's projection, else the pooled token."""
    if hasattr(network, "get_image_features"):
        said = network.get_image_features(**given)
        return said if isinstance(said, Tensor) else said.pooler_output  # transformers before 5 | from 5
    said = network(**given)
    pooled = getattr(said, "pooler_output", None)
    return said.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
