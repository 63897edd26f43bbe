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


class Owlv2:
    """One query a class, "a photo of a CLASS"; a box is of the class that suits it best."""

    def __init__(self, folder: Path, name: str, device: str) -> None:
        from transformers import Owlv2ForObjectDetection, Owlv2Processor

        self.network = open_judge(Owlv2ForObjectDetection, folder, device)
        self.processor = open_processor(Owlv2Processor, folder)
        self.name = f"{name} (transformers, boxes alone)"

    @torch.no_grad()
    def detect(self, picture: Image.Image, wanted: Sequence[str], least: float) -> Found:
        queries = [f"a photo of a {name}" for name in wanted]
        inputs = self.processor(text=[queries], images=picture.convert("RGB"), return_tensors="pt")
        out = self.network(**inputs.to(self.network.device))
        sizes = [(picture.height, picture.width)]
        [said] = self.processor.post_process_grounded_object_detection(out, least, sizes)
        found: Found = {}
        for label, detection in zip(said["labels"].tolist(), _detections(said), strict=True):
            found.setdefault(wanted[label], []).append(detection)
        return found


class GroundingDino:
    """One pass a class, since it names phrases, not classes."""

    def __init__(self, folder: Path, name: str, device: str) -> None:
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

        self.network = open_judge(GroundingDinoForObjectDetection, folder, device)
        self.processor = open_processor(GroundingDinoProcessor, folder)
        self.name = f"{name} (transformers, boxes alone)"

    @torch.no_grad()
    def detect(self, picture: Image.Image, wanted: Sequence[str], least: float) -> Found:
        return {name: self._find(picture, name, least) for name in wanted}

    def _find(self, picture: Image.Image, name: str, least: float) -> list[Detection]:
        inputs = self.processor(text=f"{name}.", images=picture.convert("RGB"), return_tensors="pt")
        out = self.network(**inputs.to(self.network.device))
        sizes = [(picture.height, picture.width)]
        [said] = self.processor.post_process_grounded_object_detection(out, inputs.input_ids, least, least, sizes)
        return _detections(said)


def _detections(said: dict[str, Any]) -> list[Detection]:
    pairs = zip(said["boxes"].tolist(), said["scores"].tolist(), strict=True)
    return [Detection(tuple(box), score) for box, score in pairs]
