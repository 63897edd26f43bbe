"""An export as ComfyUI reads it: what it adds to the weights of the original release, and those as diffusers'."""

import inspect

import diffusers.loaders.single_file_utils as single_file
import torch
from safetensors.torch import load_file

from apexgen.export.comfyui import accepted_keys
from apexgen.export.native import native_places

TINY = {"3072": "32", "2304": "32", "768": "16"}  # widths that diffusers' converters know by heart -> the pipelines'


class Zeros(dict):
    """A checkpoint that has every weight: those not given are zeros."""

    def __init__(self, weights):
        super().__init__(weights)
        self.rows = {key.replace(".weight", ".bias"): len(weight) for key, weight in weights.items()}

    def pop(self, key, default=None):
        return super().pop(key, torch.zeros(self.rows.get(key, 6)))


def from_native(family, weights):
    """The original release's weights as diffusers', by diffusers' own converter."""
    if family == "qwen":
        return weights
    name = {"sd3": "sd3_transformer_checkpoint", "zimage": "z_image_transformer_checkpoint", "lumina2": "lumina2"}
    converter = f"convert_{name.get(family, 'flux_transformer_checkpoint')}_to_diffusers"
    source = inspect.getsource(getattr(single_file, converter))
    for real, tiny in TINY.items():
        source = source.replace(real, tiny)
    exec(source, places := dict(vars(single_file)))
    return places[converter](Zeros(weights))


SWAPPED = {  # of which ComfyUI's map swaps the halves: scale comes first in diffusers, shift in the original releases
    "FluxPipeline": ("transformer.norm_out.linear",),
    "StableDiffusion3Pipeline": (
        "transformer.norm_out.linear",
        "transformer.transformer_blocks.1.norm1_context.linear",
    ),
}


def patched(file, pipeline, shapes):
    """What ComfyUI adds to each linear weight of the original release: B A, at the rows its key map gives."""
    saved, places = load_file(file), native_places(pipeline, list(shapes))
    parts = {native: {} for native, _ in places.values()}
    for module, (native, part) in places.items():
        parts[native][part] = module
    weights = {}
    for native, modules in parts.items():
        rows = [shapes[modules[part]][0] for part in sorted(modules)]
        weights[native] = torch.zeros(sum(rows), *shapes[modules[0]][1:])
    used = set()
    for key, modules in accepted_keys(pipeline, list(shapes)).items():
        if f"{key}.lora_A.weight" in saved:
            native, part = places[modules[0]]
            whole = len(modules) == len(parts[native])
            begin = 0 if whole else sum(shapes[parts[native][before]][0] for before in range(part))
            patch = saved[f"{key}.lora_B.weight"] @ saved[f"{key}.lora_A.weight"]
            if key in SWAPPED.get(pipeline, ()):
                patch = torch.cat(patch.chunk(2)[::-1])
            weights[native][begin : begin + len(patch)] += patch
            used |= {f"{key}.lora_A.weight", f"{key}.lora_B.weight"}
    assert used == saved.keys()  # else "lora key not loaded"
    return weights
