"""Detectors that are told what to look for: OWLv2 and Grounding DINO. They make boxes and no masks.

Minderer et al., https://arxiv.org/abs/2306.09683; Liu et al., https://arxiv.org/abs/2303.05499.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from apexgen.evaluate.geneval.detect import Detection, Found
from apexgen.evaluate.weights import open_judge, open_processor


class _Boxes:
    """A network of transformers, asked in words; `kind` is the beginning of its classes' names."""

    kind: str

    def __init__(self, folder: Path, name: str, device: str) -> None:
        import transformers

        self.network = open_judge(getattr(transformers, f"{self.kind}ForObjectDetection"), folder, device)
        self.processor = open_processor(getattr(transformers, f"{self.kind}Processor"), folder)
        self.name = f"{name} (transformers, boxes alone)"

    @torch.no_grad()
    def look(self, picture: Image.Image, text: Any) -> tuple[Any, Any, list[tuple[int, int]]]:
        """Output and input of the network for one picture and text, and the picture's size."""
        inputs = self.processor(text=text, images=picture, return_tensors="pt").to(self.network.device)
        return self.network(**inputs), inputs, [(picture.height, picture.width)]


class Owlv2(_Boxes):
    """One query a class, "a photo of a CLASS"; a box is of the class that suits it best."""

    kind = "Owlv2"

    def detect(self, picture: Image.Image, wanted: Sequence[str], least: float) -> Found:
        out, _, sizes = self.look(picture, [[f"a photo of a {name}" for name in wanted]])
        [said] = self.processor.post_process_grounded_object_detection(out, least, sizes)
        found: Found = {}
        for label, detection in zip(said["labels"].tolist(), _detections(said), strict=True):
            found.setdefault(wanted[label], []).append(detection)
        return found


class GroundingDino(_Boxes):
    """One pass a class, since it names phrases, not classes."""

    kind = "GroundingDino"

    def detect(self, picture: Image.Image, wanted: Sequence[str], least: float) -> Found:
        return {name: self._find(picture, name, least) for name in wanted}

    def _find(self, picture: Image.Image, name: str, least: float) -> list[Detection]:
        out, inputs, sizes = self.look(picture, f"{name}.")
        [said] = self.processor.post_process_grounded_object_detection(out, inputs.input_ids, least, least, sizes)
        return _detections(said)


def _detections(said: dict[str, Any]) -> list[Detection]:
    pairs = zip(said["boxes"].tolist(), said["scores"].tolist(), strict=True)
    return [Detection(tuple(box), score) for box, score in pairs]
