"""Tiny judges of random weights, as the folders that the real ones are downloaded as; and folders of pictures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from text_encoders import WIDTH, new_clip

SIDE = 32  # pixels a side of what the judges are given


def clip_folder(folder: Path) -> Path:
    """A CLIP of pictures and texts."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextModel

    torch.manual_seed(0)
    tokenizer, text = new_clip(CLIPTextModel)
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
    }
    CLIPModel(CLIPConfig(text_config=text.config.to_dict(), vision_config=vision, projection_dim=8)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    _save_processor(folder, "CLIPImageProcessor")
    return folder


def dino_folder(folder: Path) -> Path:
    """A DINOv2, which knows pictures alone."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=8, mlp_ratio=1
    )
    Dinov2Model(config).save_pretrained(folder)
    _save_processor(folder, "BitImageProcessor")
    return folder


def _save_processor(folder: Path, kind: str) -> None:
    import transformers

    size = {"shortest_edge": SIDE}
    processor = getattr(transformers, kind)(size=size, crop_size={"height": SIDE, "width": SIDE})
    processor.save_pretrained(folder)


def pictures(folder: Path, count: int, seed: int = 0, shade: float = 0.5) -> Path:
    """Random pictures of random sizes around a shade, 000.png and on."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        height, width = random.integers(16, 48, size=2)
        colored = shade + random.normal(0, 0.1, 3) + random.normal(0, 0.05, (height, width, 3))
        Image.fromarray((255 * colored.clip(0, 1)).astype(np.uint8)).save(folder / f"{number:03d}.png")
    return folder
