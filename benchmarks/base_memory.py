"""What a base and a LoRA on it hold in memory, by arithmetic from published shapes: no weight is made or downloaded.

Run: python benchmarks/base_memory.py
LoRA: the family's own targets at rank 32, with its gradient, two moments and average, all float32. Without activations,
text encoders and autoencoder; those `apexgen train run.toml --dry-run` measures on the model itself.
"""

import argparse
from typing import Any

import diffusers
import torch
from torch import nn

from apexgen.backbones.diffusion import BACKBONES, find_adapter
from apexgen.backbones.targets import fits

RANK, GB = 32, 1e9
COPIES = 5  # of a trained weight: itself, gradient, two moments, average
STABLE_DIFFUSION_3 = {
    "sample_size": 128, "in_channels": 16, "out_channels": 16, "num_layers": 24, "num_attention_heads": 24,
    "attention_head_dim": 64, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
}  # fmt: skip
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {  # model -> pipeline, network, what is not the class's default
    "FLUX.1 dev": ("FluxPipeline", "FluxTransformer2DModel", {"guidance_embeds": True}),
    "Lumina-Image 2.0": ("Lumina2Pipeline", "Lumina2Transformer2DModel", {}),
    "Qwen-Image": ("QwenImagePipeline", "QwenImageTransformer2DModel", {}),
    "SANA 1.6B": ("SanaPipeline", "SanaTransformer2DModel", {}),
    "Stable Diffusion 3 medium": ("StableDiffusion3Pipeline", "SD3Transformer2DModel", STABLE_DIFFUSION_3),
    "Z-Image": ("ZImagePipeline", "ZImageTransformer2DModel", {}),
}


def row(name: str) -> str:
    """A line of the table."""
    pipeline, network_name, config = SHAPES[name]
    with torch.device("meta"):
        network = getattr(diffusers, network_name)(**config)
    adapter = find_adapter(pipeline)
    backbone = adapter.__new__(adapter)
    backbone.network = network
    adapted = [
        module
        for key, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and fits(key, backbone.lora_targets)
        and not fits(key, backbone.lora_excluded)
    ]
    lora = sum(RANK * (module.weight[0].numel() + len(module.weight)) for module in adapted)
    count = sum(weight.numel() for weight in network.parameters())
    linear = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Linear))
    held = (4 * count, 2 * count, linear + 2 * (count - linear), linear / 2 + 2 * (count - linear))
    sizes = " | ".join(f"{size / GB:.1f}" for size in held)
    trained = f"{lora / 1e6:.0f} M | {COPIES * 4 * lora / GB:.1f}"
    return f"| {name} | {count / 1e9:.2f} B | {sizes} | {len(adapted)} | {trained} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    assert {pipeline for pipeline, _, _ in SHAPES.values()} == set(BACKBONES)
    print("| model | weights | float32 | bfloat16 | 8bit | 4bit | adapted | LoRA | its memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in SHAPES:
        print(row(name))


if __name__ == "__main__":
    main()
