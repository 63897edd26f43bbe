"""What an export must show once it is opened again: every module in effect, and our pictures.

It is taken down before the student is let go, so that one pipeline at a time is in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apexgen.export.layers import lora_layers, lora_modules
from apexgen.export.scheduler import fresh_noise, seeded, stock_scheduler
from apexgen.generate import make_pictures
from apexgen.student import Student


@dataclass(frozen=True)
class Proof:
    """A student's pictures, and how the stock pipeline is asked for the same."""

    modules: int  # that were trained
    moved: int  # of them, by a LoRA that is not zero
    task_lora: Path | None  # that is opened beside the student's
    scheduler: Any  # the stock one
    device: torch.device
    prompts: list[str]
    latents: Tensor  # as the stock pipeline takes them
    drawn: list[tuple[np.ndarray, dict[str, Any]]]  # pictures, and the arguments of the stock call that draws them


def take_proof(
    student: Student, prompts: Sequence[str], noise: Tensor, steps: Sequence[int], renoises: bool = False
) -> Proof:
    """Draw prompts from noises (B, C, h, w) with the averaged student, in each number of steps.

    renoises: by fresh noise between them, the noise that the stock scheduler will draw in `difference`.
    """
    backbone = student.backbone
    c = backbone.encode_text(prompts)
    drawn = []
    for count in steps:
        fresh = fresh_noise(backbone, noise, count) if renoises else None
        pictures = make_pictures(backbone, student.ema, c, noise, count, fresh)
        drawn.append((pictures, backbone.pipeline_arguments(count, guidance=1.0)))
    is_lora = student.mode == "lora"
    modules = lora_modules(lora_layers(student)) if is_lora else {name.rpartition(".")[0] for name in student.weights}
    moved = sum(bool(weight.any()) for name, weight in student.average.items() if ".lora_B." in name)
    latents, scheduler = backbone.pack(noise).clone(), stock_scheduler(backbone, renoises)
    return Proof(len(modules), moved, backbone.task_lora, scheduler, backbone.device, list(prompts), latents, drawn)


def difference(proof: Proof, pipeline: Any) -> float:
    """The largest difference, in [0, 1] pixel values, of an opened export's pictures from the student's."""
    seen = []
    # Copies: a stock pipeline may write into what it is given.
    for ours, arguments in proof.drawn:
        with seeded():
            stock = pipeline(
                prompt=list(proof.prompts), latents=proof.latents.clone(), output_type="np", **arguments
            ).images
        seen.append(float(np.abs(ours - stock).max()))
    return max(seen)
