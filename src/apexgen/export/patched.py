"""An export for ComfyUI as ComfyUI runs it: the base, each weight that a file's key names moved by B A.

It reads what was written, and knows nothing of the student: the workflow says which files, ComfyUI's map where.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from apexgen.backbones.diffusion import open_pipeline
from apexgen.export.comfyui import WORKFLOW, accepted_keys


def open_patched(folder: Path, base: Path, scheduler: Any) -> tuple[Any, int]:
    """The stock pipeline of a base with an export's files added, and how many modules the last of them moved.

    ValueError for a key that ComfyUI does not load, and for a patch of another size than what it is for.
    """
    pipeline = open_pipeline(base)
    pipeline.scheduler = scheduler
    nodes = json.loads((folder / WORKFLOW).read_text()).values()
    moved = 0
    for node in nodes:  # a later one is on the model of the one before
        if node["class_type"] == "LoraLoaderModelOnly":
            given = node["inputs"]
            moved = _add(pipeline, folder / given["lora_name"], given["strength_model"])
    return pipeline, moved


@torch.no_grad()
def _add(pipeline: Any, file: Path, strength: float) -> int:
    """Add a file's LoRA to the network's weights; returns how many it changed."""
    kinds = (nn.Linear, nn.Conv2d)
    modules = {name: module for name, module in pipeline.transformer.named_modules() if isinstance(module, kinds)}
    accepted, saved = accepted_keys(type(pipeline).__name__, list(modules)), load_file(file)
    moved = 0
    for key in sorted({name.rpartition(".lora_")[0] for name in saved}):
        if key not in accepted:
            raise ValueError(f"{file}: ComfyUI does not load {key}")
        up, down = (saved[f"{key}.lora_{factor}.weight"].flatten(1) for factor in "BA")
        weights = [modules[name].weight for name in accepted[key]]
        rows = [len(weight) for weight in weights]
        if sum(rows) != len(up):
            raise ValueError(f"{file}: {key} has {len(up)} rows, what it moves {sum(rows)}")
        for weight, patch in zip(weights, (strength * up @ down).split(rows), strict=True):
            weight += patch.view_as(weight)
            moved += bool(patch.any())
    return moved
