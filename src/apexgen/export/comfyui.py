"""A LoRA file under the keys that ComfyUI reads, and a workflow that samples it.

ComfyUI runs models under the names of their original release. For FLUX.1, Stable Diffusion 3, Qwen-Image and Z-Image it
maps diffusers' names to them itself and swaps the halves that stand in another order, so the file is the one for
diffusers; for Lumina-Image 2.0 it does not, so the names are converted and the parts of a fused weight joined. Read in
comfy/lora.py and comfy/utils.py of https://github.com/Comfy-Org/ComfyUI.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from apexgen.backbones.task_lora import LORA_FILE, TASK
from apexgen.export.layers import lora_layers, lora_modules
from apexgen.export.native import native_places
from apexgen.export.workflow import workflow
from apexgen.student import ADAPTER, Student

DOTTED = {  # pipeline class -> what may stand before a module's diffusers name
    "FluxPipeline": ("transformer.", ""),
    "StableDiffusion3Pipeline": ("transformer.", "base_model.model."),
    "QwenImagePipeline": ("transformer.", ""),
    "ZImagePipeline": ("transformer.", "diffusion_model.", ""),
}
FLAT = {  # the same before a name whose dots are underscores
    "FluxPipeline": ("lycoris_", "lora_transformer_"),
    "StableDiffusion3Pipeline": ("lycoris_", "lora_transformer_"),
    "QwenImagePipeline": ("lycoris_",),
    "ZImagePipeline": ("lycoris_",),
}
SUPPORTED = (*DOTTED, "Lumina2Pipeline")
WORKFLOW = "workflow.json"
TASK_FILE = "task.safetensors"  # the user's LoRA that the student was distilled on top of, in ComfyUI's words too


def accepted_keys(pipeline: str, modules: list[str]) -> dict[str, list[str]]:
    """What ComfyUI lets stand before `.lora_A.weight`, and the modules of diffusers whose rows it moves, in order."""
    accepted: dict[str, list[str]] = {}
    whole: dict[str, list[str]] = defaultdict(list)
    places = native_places(pipeline, modules)
    for module, (native, _) in places.items():
        whole[native].append(module)
        for prefix in DOTTED.get(pipeline, ()):
            accepted[prefix + module] = [module]
        for prefix in FLAT.get(pipeline, ()):
            accepted[prefix + module.replace(".", "_")] = [module]
    for native, parts in whole.items():
        parts.sort(key=lambda module: places[module][1])
        accepted[f"diffusion_model.{native}"] = accepted["lora_unet_" + native.replace(".", "_")] = parts
    return accepted


def check_comfyui(student: Student) -> None:
    """ValueError where ComfyUI has no such model, or no place for a module that the student adapts."""
    backbone, pipeline = student.backbone, type(student.backbone.pipeline).__name__
    if student.mode != "lora":
        raise ValueError('model.tune = "full" makes no LoRA; write --to merged, or train with model.tune = "lora"')
    if pipeline not in SUPPORTED:
        raise ValueError(f"ComfyUI itself has no {backbone.family} model; write --to diffusers or --to merged")
    for adapter in _adapters(student):
        modules = sorted(lora_modules(lora_layers(student, adapter)))
        if homeless := set(modules) - native_places(pipeline, modules).keys():
            mine, theirs = "train without it in model.targets", f"{backbone.task_lora} has it; write --to merged"
            whose = mine if adapter == ADAPTER else theirs
            raise ValueError(f"ComfyUI has no place for {min(homeless)} of {backbone.family}: {whose}")


def _adapters(student: Student) -> dict[str, str]:
    """The LoRAs that the network has beside its weights, each with its file, in the order they are loaded."""
    files = {TASK: TASK_FILE, ADAPTER: LORA_FILE}
    return {name: files[name] for name in (*student.backbone.adapters, ADAPTER)}


def write_comfyui(student: Student, folder: Path, renoises: bool) -> None:
    """Write the averaged student's LoRA and workflow.json to a new folder.

    On top of a user's LoRA that is stacked, a file of that too, which the workflow loads first.
    ValueError as in `check_comfyui`.
    """
    check_comfyui(student)
    pipeline, adapters = type(student.backbone.pipeline).__name__, _adapters(student)
    folder.mkdir()
    for adapter, name in adapters.items():
        with student.averaged():
            layers = {key: tensor.detach().cpu().clone() for key, tensor in lora_layers(student, adapter).items()}
        if pipeline in DOTTED:
            tensors = {f"transformer.{key}": tensor.contiguous() for key, tensor in layers.items()}
        else:
            tensors = to_native(pipeline, layers, _rows(student.backbone.network))
        save_file(tensors, folder / name, metadata={"format": "pt"})
    graph = workflow(student.backbone, list(adapters.values()), renoises)
    (folder / WORKFLOW).write_text(json.dumps(graph, indent=2) + "\n")


def to_native(pipeline: str, layers: dict[str, Tensor], rows: dict[str, int]) -> dict[str, Tensor]:
    """A LoRA under the original release's names; rows: of the weight of each of the network's modules.

    The parts of a fused weight become one LoRA: its A is theirs on top of one another, its B theirs along the diagonal
    and zero for a part without a LoRA, so that B A is each part's own, exactly.
    """
    joined: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for module, (native, part) in native_places(pipeline, list(rows)).items():
        joined[native].append((part, module))
    tensors = {}
    for native, parts in joined.items():
        names = [module for _, module in sorted(parts)]
        adapted = [name for name in names if f"{name}.lora_A.weight" in layers]
        if not adapted:
            continue
        up = [layers.get(f"{name}.lora_B.weight", torch.zeros(rows[name], 0)) for name in names]
        tensors[f"diffusion_model.{native}.lora_A.weight"] = torch.cat(
            [layers[f"{name}.lora_A.weight"] for name in adapted]
        )
        tensors[f"diffusion_model.{native}.lora_B.weight"] = torch.block_diag(*up)
    return tensors


def _rows(network: Any) -> dict[str, int]:
    weights = {key.replace(".base_layer.", "."): tensor for key, tensor in network.state_dict().items()}
    return {key.removesuffix(".weight"): len(tensor) for key, tensor in weights.items() if key.endswith(".weight")}
