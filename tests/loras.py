"""LoRA files of random weights in the spelling of each trainer, and the base that they are for."""

import torch
from safetensors.torch import save_file

from apexgen.doctor.base import describe, open_empty

RANK, ALPHA = 4, 8.0
TRAINERS = {  # prefix, the two factors, alpha beside them
    "diffusers": ("transformer.", "lora_A", "lora_B", None),
    "diffusers, alpha": ("transformer.", "lora_A", "lora_B", ALPHA),
    "PEFT": ("base_model.model.", "lora_A", "lora_B", None),
    "kohya": ("lora_unet_", "lora_down", "lora_up", ALPHA),
    "ai-toolkit": ("diffusion_model.", "lora_A", "lora_B", None),
    "DiffSynth": ("", "lora_A.default", "lora_B.default", None),
    "Lightning": ("", "lora_down", "lora_up", ALPHA),
}


def weights(shapes, prefix, down, up, alpha):
    """A LoRA of these modules, {name: (rows, columns)}, in a trainer's spelling."""
    tensors = {}
    for name, (rows, columns) in shapes.items():
        key = prefix + (name.replace(".", "_") if prefix.endswith("_") else name)
        tensors[f"{key}.{down}.weight"] = torch.randn(RANK, columns)
        tensors[f"{key}.{up}.weight"] = torch.randn(rows, RANK)
        if alpha is not None:
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
    return tensors


def base_of(folder):
    """A pipeline's folder, and the shapes of its attention's first layer."""
    shapes = describe(open_empty(folder)).shapes
    return folder, {name: shape for name, shape in shapes.items() if name.endswith("to_q")}


def written(folder, tensors, metadata=None):
    save_file(tensors, folder / "lora.safetensors", metadata=metadata)
    return folder / "lora.safetensors"
