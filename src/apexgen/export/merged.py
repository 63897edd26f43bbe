"""A whole pipeline folder: the base's, with the student's transformer and scheduler in place of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from apexgen.student import ADAPTER, Student


@torch.no_grad()
def merged_weights(student: Student) -> dict[str, Tensor]:
    """The network's tensors under their stock names, each LoRA added to the weight it adapts: W + B A.

    With the student's, a user's own that is stacked under it.
    """
    from peft.tuners.lora import LoraLayer

    network, adapters = student.backbone.network, (*student.backbone.adapters, ADAPTER)
    adapted = {name: module for name, module in network.named_modules() if isinstance(module, LoraLayer)}
    tensors: dict[str, Tensor] = {}
    for key, tensor in network.state_dict().items():
        if ".lora_" not in key:
            tensors[key.replace(".base_layer.", ".")] = tensor
    for name, module in adapted.items():
        weight = tensors[f"{name}.weight"]
        added = sum(module.get_delta_weight(adapter).float() for adapter in adapters if adapter in module.lora_A)
        tensors[f"{name}.weight"] = (weight.float() + added).to(weight.dtype)
    return tensors


def write_pipeline(network: Any, weights: dict[str, Tensor], scheduler: Any, base: Path, folder: Path) -> None:
    """Copy the base to `folder`, all but its transformer; write one of these weights, and name the scheduler."""

    def left_out(place: str, names: list[str]) -> set[str]:
        return {"transformer", ".git", ".cache"} & set(names) if Path(place) == base else set()

    shutil.copytree(base, folder, ignore=left_out)
    with torch.device("meta"):  # a stock module to save by; its own weights are never made
        stock = type(network).from_config(network.config)
    stock.load_state_dict(weights, assign=True)
    stock.save_pretrained(folder / "transformer")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def check_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """ValueError when the transformer in a pipeline folder is not of exactly these weights."""
    left = dict(weights)
    for file in sorted((folder / "transformer").glob("*.safetensors")):
        with safe_open(file, framework="pt") as saved:  # a tensor at a time
            for name in saved.keys():
                if name in left and torch.equal(saved.get_tensor(name), left[name].cpu()):
                    del left[name]
    if left:
        raise ValueError(f"{folder / 'transformer'}: {min(left)} is not what was merged")
