"""CLIP score: how well a picture fits its prompt, max(100 cos, 0) of a CLIP's two embeddings, by torchmetrics.

Hessel et al., https://arxiv.org/abs/2104.08718, without their factor 2.5. torchmetrics is handed features: in its own
reading, long prompts lose the end-of-text token that a text's features are taken from, and transformers 5 breaks it.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from apexgen.evaluate.collection import features_of
from apexgen.evaluate.distances import torchmetrics
from apexgen.evaluate.features import Extractor, open_vision_model
from apexgen.evaluate.weights import TOKENIZER, find_weights, open_judge, open_processor

SOURCE = "openai/clip-vit-large-patch14"  # whose score most tables print


def open_clip(folder: Path, device: str | torch.device = "cpu") -> Extractor:
    """The picture half of a CLIP. ValueError, one line, where there is none."""
    return open_vision_model("--clip", folder, SOURCE, device, TOKENIZER)


def clip_scores(
    files: Sequence[Path], prompts: Sequence[str], folder: Path, cache: Path, console: Console, device: str = "cpu"
) -> tuple[Tensor, int]:
    """max(100 cos, 0) of each picture and its prompt, (n,); and how many prompts were longer than the CLIP reads."""
    torchmetrics("functional.multimodal.clip_score")  # where it is missing, nothing is read first
    pictures = features_of(files, open_clip(folder, device), cache, console, "CLIP reads the pictures")
    texts, cut = encode_texts(prompts, folder, device)
    if texts.shape[1] != pictures.shape[1]:
        raise ValueError(f"--clip {folder} is no CLIP: its pictures and texts have different lengths")
    return scores_of(pictures, texts), cut


def scores_of(pictures: Tensor, texts: Tensor) -> Tensor:
    """max(100 cos, 0) of two sets of features (n, width), row by row: (n,)."""
    score = torchmetrics("functional.multimodal.clip_score").clip_score
    pairs = zip(pictures[:, :, None, None], texts[:, :, None, None], strict=True)  # as pictures of one pixel
    return torch.stack([score([picture], [text], lambda: (_Passed(), _Passed())) for picture, text in pairs])


class _Passed:
    """Stands for torchmetrics' processor and for its CLIP: hands on features that are features already."""

    def __call__(self, images: list[Tensor], return_tensors: str, padding: bool) -> dict[str, Tensor]:
        return {"pixel_values": torch.stack(images)}

    def get_image_features(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1)

    def to(self, device: torch.device) -> "_Passed":
        return self


@torch.no_grad()
def encode_texts(prompts: Sequence[str], folder: Path, device: str = "cpu", batch: int = 64) -> tuple[Tensor, int]:
    """The texts' features (n, width), and how many had to be cut; the end-of-text token stays."""
    from transformers import AutoModel, AutoTokenizer

    found = find_weights("--clip", str(folder), SOURCE, ("config.json", *TOKENIZER))
    network = open_judge(AutoModel, found, device)
    if not hasattr(network, "get_text_features"):
        raise ValueError(f"--clip {folder} is no CLIP but a {type(network).__name__}; download {SOURCE}")
    tokenizer = open_processor(AutoTokenizer, found)
    longest = network.config.text_config.max_position_embeddings
    cut = sum(len(ids) > longest for ids in tokenizer(list(prompts)).input_ids)
    parts = []
    for start in range(0, len(prompts), batch):
        given = tokenizer(
            list(prompts[start : start + batch]), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        said = network.get_text_features(
            input_ids=given["input_ids"].to(device), attention_mask=given["attention_mask"].to(device)
        )
        parts.append((said if isinstance(said, Tensor) else said.pooler_output).float().cpu())
    return torch.cat(parts), cut
