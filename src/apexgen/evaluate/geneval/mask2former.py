"""Mask2Former as mmdet runs it, on the weights that transformers has: what GenEval's own detector is, but for training.

Cheng et al., https://arxiv.org/abs/2112.01527; sizes and post-processing as mmdet 2's config
mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco and its MaskFormerFusionHead.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from apexgen.evaluate.geneval.detect import Detection, Found, is_above
from apexgen.evaluate.geneval.records import class_names
from apexgen.evaluate.weights import open_judge

LONG, SHORT, MULTIPLE = 1333, 800, 32  # pixels of the sides a picture is scaled to, at most; what they are padded to
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
MOST = 100  # pairs of a query and a class, a picture


class Mask2Former:
    """An instance segmenter of COCO's 80 classes, by index; ValueError for weights of other classes."""

    def __init__(self, folder: Path, name: str, device: str) -> None:
        from transformers import Mask2FormerForUniversalSegmentation

        self.network = open_judge(Mask2FormerForUniversalSegmentation, folder, device)
        self.names, self.name = class_names(), f"{name} (transformers, mmdet's post-processing)"
        if self.network.config.num_labels != len(self.names):
            raise ValueError(f"--detector {name} knows {self.network.config.num_labels} classes, not COCO's 80")

    @torch.no_grad()
    def detect(self, picture: Image.Image, wanted: Sequence[str], least: float) -> Found:
        if strange := [name for name in wanted if name not in self.names]:
            raise ValueError(f"{strange[0]!r} is none of COCO's 80 classes; write --kind owlv2, which reads any name")
        pixels, (height, width) = prepare(picture)
        out = self.network(pixel_values=pixels.to(self.network.device))
        logits = out.masks_queries_logits.float()

        def masks(queries: Tensor) -> Tensor:
            """Mask logits at the size of what the network saw, then without its padding at the picture's own."""
            seen = _resize(logits[0, queries], pixels.shape[2], pixels.shape[3])
            return _resize(seen[:, :height, :width], picture.height, picture.width)

        scores, classes, queries = best_pairs(out.class_queries_logits[0].float())
        sure = scores > least  # the mask's share of a score is at most 1
        found: Found = {}
        for score, index, mask in zip(scores[sure], classes[sure], masks(queries[sure]), strict=True):
            detection = describe(float(score), mask)
            if is_above(detection.score, least):
                found.setdefault(self.names[int(index)], []).append(detection)
        return found


def prepare(picture: Image.Image) -> tuple[Tensor, tuple[int, int]]:
    """Normalised pixels (1, 3, H, W), H and W multiples of 32, and the height and width that the picture has in them.

    Scaled to 1333 x 800 at most, its sides' ratio kept, bilinear without smoothing, as OpenCV does.
    """
    scale = min(LONG / max(picture.size), SHORT / min(picture.size))
    width, height = (int(side * scale + 0.5) for side in picture.size)
    pixels = torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32)).permute(2, 0, 1)
    scaled = _resize(pixels, height, width).round()
    normal = (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    return functional.pad(normal, (0, -width % MULTIPLE, 0, -height % MULTIPLE))[None], (height, width)


def best_pairs(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 100 surest pairs of class logits (queries, classes + 1): scores, classes, queries; the last class is none."""
    probabilities = logits.softmax(-1)[:, :-1]
    scores, places = probabilities.flatten().topk(min(MOST, probabilities.numel()))
    return scores, places % probabilities.shape[1], places // probabilities.shape[1]


def describe(score: float, logits: Tensor) -> Detection:
    """A detection from its class's score and its mask's logits (H, W).

    score = class score x mean of the mask's probabilities inside it, a float32 as mmdet's; the mask is where
    logits > 0, the box its bounds.
    """
    inside = logits > 0
    share = (logits.sigmoid() * inside).sum() / (inside.sum() + 1e-6)
    columns, rows = torch.where(inside.any(0))[0].tolist(), torch.where(inside.any(1))[0].tolist()
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if columns else (0, 0, 0, 0)
    sure = float(np.float32(score * float(share)))
    return Detection(tuple(map(float, box)), sure, inside.cpu().numpy())  # type: ignore[arg-type]


def _resize(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (N, H, W), bilinear."""
    return functional.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[0]
