"""A workflow that samples a LoRA in ComfyUI, in the API's format: the family's loaders, plain steps, no guidance.

With a shift of 1 ComfyUI's "simple" grid is ours, 1, 1 - 1/n, ..., 0, and at cfg 1 it never asks for the negative.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apexgen.backbones.base import Backbone

Node = dict[str, Any]
LOADERS: dict[str, dict[str, Node]] = {  # file names as ComfyUI's own examples give them, the user's to change
    "FluxPipeline": {
        "model": {"class_type": "UNETLoader", "unet_name": "flux1-dev.safetensors", "weight_dtype": "default"},
        "text": {
            "class_type": "DualCLIPLoader",
            "clip_name1": "clip_l.safetensors",
            "clip_name2": "t5xxl_fp16.safetensors",
            "type": "flux",
        },
        "vae": {"class_type": "VAELoader", "vae_name": "ae.safetensors"},
    },
    "Lumina2Pipeline": {
        "model": {
            "class_type": "UNETLoader",
            "unet_name": "lumina_2_bf16.safetensors",
            "weight_dtype": "default",
        },
        "text": {"class_type": "CLIPLoader", "clip_name": "gemma_2_2b_fp16.safetensors", "type": "lumina2"},
        "vae": {"class_type": "VAELoader", "vae_name": "ae.safetensors"},
    },
    "QwenImagePipeline": {
        "model": {"class_type": "UNETLoader", "unet_name": "qwen_image_bf16.safetensors", "weight_dtype": "default"},
        "text": {"class_type": "CLIPLoader", "clip_name": "qwen_2.5_vl_7b.safetensors", "type": "qwen_image"},
        "vae": {"class_type": "VAELoader", "vae_name": "qwen_image_vae.safetensors"},
    },
    "StableDiffusion3Pipeline": {
        "model": {"class_type": "CheckpointLoaderSimple", "ckpt_name": "sd3.5_medium.safetensors"},
        "text": {
            "class_type": "TripleCLIPLoader",
            "clip_name1": "clip_l.safetensors",
            "clip_name2": "clip_g.safetensors",
            "clip_name3": "t5xxl_fp16.safetensors",
        },
    },
    "ZImagePipeline": {
        "model": {"class_type": "UNETLoader", "unet_name": "z_image_bf16.safetensors", "weight_dtype": "default"},
        "text": {"class_type": "CLIPLoader", "clip_name": "qwen_3_4b.safetensors", "type": "lumina2"},
        "vae": {"class_type": "VAELoader", "vae_name": "ae.safetensors"},
    },
}


def workflow(backbone: Backbone, loras: Sequence[str], renoises: bool) -> dict[str, Node]:
    """The graph, node's name -> class and inputs; loras: files, one on another; renoises: fresh noise between."""
    pipeline = type(backbone.pipeline).__name__
    height, width = backbone.sides
    guided = getattr(backbone.network.config, "guidance_embeds", False)
    nodes = (
        _loaders(pipeline, guided)
        | _loras(loras)
        | {
            "grid": _grid(pipeline, width, height),
            "prompt": _prompt(pipeline),
            "noise": {"class_type": "EmptySD3LatentImage", "width": width, "height": height, "batch_size": 1},
            "sampler": {
                "class_type": "KSampler",
                "model": ["grid", 0],
                "positive": ["prompt", 0],
                "negative": ["prompt", 0],
                "latent_image": ["noise", 0],
                "seed": 0,
                "steps": 1,
                "cfg": 1.0,
                "sampler_name": "lcm" if renoises else "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
            "decoded": {"class_type": "VAEDecode", "samples": ["sampler", 0], "vae": _vae(pipeline)},
            "saved": {"class_type": "SaveImage", "images": ["decoded", 0], "filename_prefix": "apexgen"},
        }
    )
    if guided:
        told = backbone.pipeline_arguments(1, guidance=1.0)["guidance_scale"]
        nodes["told"] = {"class_type": "FluxGuidance", "conditioning": ["prompt", 0], "guidance": told}
        nodes["sampler"]["positive"] = ["told", 0]
    return {
        name: {"class_type": node["class_type"], "inputs": {key: node[key] for key in node if key != "class_type"}}
        for name, node in nodes.items()
    }


def _loaders(pipeline: str, guided: bool) -> dict[str, Node]:
    """The family's; of FLUX.1 the one that reads no guidance is schnell."""
    nodes = LOADERS[pipeline]
    if pipeline == "FluxPipeline" and not guided:
        return nodes | {"model": nodes["model"] | {"unet_name": "flux1-schnell.safetensors"}}
    return nodes


def _loras(files: Sequence[str]) -> dict[str, Node]:
    """A loader for each file, each on the model of the one before; the last is called lora."""
    names = [*(Path(file).stem for file in files[:-1]), "lora"]
    return {
        name: {"class_type": "LoraLoaderModelOnly", "model": [under, 0], "lora_name": file, "strength_model": 1.0}
        for name, under, file in zip(names, ["model", *names], files, strict=False)
    }


def _grid(pipeline: str, width: int, height: int) -> Node:
    """The node that takes the family's shift of time off."""
    model = {"model": ["lora", 0]}
    if pipeline == "FluxPipeline":  # in logarithms: 0 is none
        flat = {"max_shift": 0.0, "base_shift": 0.0}
        return {"class_type": "ModelSamplingFlux", "width": width, "height": height} | flat | model
    kind = "SD3" if pipeline == "StableDiffusion3Pipeline" else "AuraFlow"  # the networks' times: 1000 t, or t
    return {"class_type": f"ModelSampling{kind}", "shift": 1.0} | model


def _prompt(pipeline: str) -> Node:
    text, clip = "a photo of a red circle", {"clip": ["text", 0]}
    if pipeline == "Lumina2Pipeline":  # the pipeline's own system prompt
        return {"class_type": "CLIPTextEncodeLumina2", "system_prompt": "superior", "user_prompt": text} | clip
    return {"class_type": "CLIPTextEncode", "text": text} | clip


def _vae(pipeline: str) -> list[Any]:
    return ["vae", 0] if "vae" in LOADERS[pipeline] else ["model", 2]
