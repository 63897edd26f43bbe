"""What each family's original release calls the linear modules that diffusers renamed: ComfyUI runs under those names.

Several modules may be rows of one: `("img_attn.qkv", 2)` is the third part of a fused weight. Sources: the key maps of
ComfyUI's comfy/utils.py and of diffusers' single-file loaders, https://github.com/Comfy-Org/ComfyUI.
"""

import re
from dataclasses import dataclass

Place = tuple[str, int]  # a native module, and which of its parts
Names = dict[str, str | Place]  # of a diffusers module, or of the end of one's name


@dataclass(frozen=True)
class Native:
    """The names of one family."""

    blocks: dict[str, tuple[str, Names]]  # a stack of diffusers -> the native stack, and the names inside a block
    others: Names

    def find(self, module: str) -> Place | None:
        """Where a module of diffusers is, such as ("double_blocks.3.img_attn.qkv", 2); None where it has no place."""
        found = re.fullmatch(r"(\w+)\.(\d+)\.(.+)", module)
        if found is None or found[1] not in self.blocks:
            place, begin = self.others.get(module), ""
        else:
            stack, names = self.blocks[found[1]]
            place, begin = names.get(found[3]), f"{stack}.{found[2]}."
        if place is None:
            return None
        name, part = (place, 0) if isinstance(place, str) else place
        return begin + name, part


def _fused(modules: tuple[str, ...], native: str) -> Names:
    return {module: (native, part) for part, module in enumerate(modules)}


def _timestep(native: tuple[str, str], embedder: str = "time_text_embed.timestep_embedder") -> Names:
    return {f"{embedder}.linear_{layer}": name for layer, name in zip((1, 2), native, strict=True)}


_Q_K_V = ("to_q", "to_k", "to_v")
_PICTURE = tuple(f"attn.{name}" for name in _Q_K_V)
_TEXT = tuple(f"attn.add_{name}_proj" for name in "qkv")
_MODULATION: Names = {"norm_out.linear": "final_layer.adaLN_modulation.1"}  # its halves swapped

FLUX = Native(
    {
        "transformer_blocks": (
            "double_blocks",
            _fused(_PICTURE, "img_attn.qkv")
            | _fused(_TEXT, "txt_attn.qkv")
            | {
                "attn.to_out.0": "img_attn.proj",
                "attn.to_add_out": "txt_attn.proj",
                "ff.net.0.proj": "img_mlp.0",
                "ff.net.2": "img_mlp.2",
                "ff_context.net.0.proj": "txt_mlp.0",
                "ff_context.net.2": "txt_mlp.2",
                "norm1.linear": "img_mod.lin",
                "norm1_context.linear": "txt_mod.lin",
            },
        ),
        "single_transformer_blocks": (
            "single_blocks",
            _fused((*_PICTURE, "proj_mlp"), "linear1") | {"proj_out": "linear2", "norm.linear": "modulation.lin"},
        ),
    },
    _timestep(("time_in.in_layer", "time_in.out_layer"))
    | _timestep(("vector_in.in_layer", "vector_in.out_layer"), "time_text_embed.text_embedder")
    | _timestep(("guidance_in.in_layer", "guidance_in.out_layer"), "time_text_embed.guidance_embedder")
    | {"x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear"}
    | _MODULATION,
)

SD3 = Native(
    {
        "transformer_blocks": (
            "joint_blocks",
            _fused(_PICTURE, "x_block.attn.qkv")
            | _fused(_TEXT, "context_block.attn.qkv")
            | _fused(tuple(f"attn2.{name}" for name in _Q_K_V), "x_block.attn2.qkv")
            | {
                "attn.to_out.0": "x_block.attn.proj",
                "attn.to_add_out": "context_block.attn.proj",
                "attn2.to_out.0": "x_block.attn2.proj",
                "ff.net.0.proj": "x_block.mlp.fc1",
                "ff.net.2": "x_block.mlp.fc2",
                "ff_context.net.0.proj": "context_block.mlp.fc1",
                "ff_context.net.2": "context_block.mlp.fc2",
                "norm1.linear": "x_block.adaLN_modulation.1",
                "norm1_context.linear": "context_block.adaLN_modulation.1",  # of the last block, halves swapped
            },
        )
    },
    _timestep(("t_embedder.mlp.0", "t_embedder.mlp.2"))
    | _timestep(("y_embedder.mlp.0", "y_embedder.mlp.2"), "time_text_embed.text_embedder")
    | {
        "pos_embed.proj": "x_embedder.proj",
        "context_embedder": "context_embedder",
        "proj_out": "final_layer.linear",
    }
    | _MODULATION,
)

_LUMINA2_BLOCK = (
    _fused(_PICTURE, "attention.qkv")
    | {"attn.to_out.0": "attention.out", "norm1.linear": "adaLN_modulation.1"}
    | {f"feed_forward.linear_{part}": f"feed_forward.w{part}" for part in (1, 2, 3)}
)
_Z_IMAGE_BLOCK = (
    _fused(tuple(f"attention.{name}" for name in _Q_K_V), "attention.qkv")
    | {"attention.to_out.0": "attention.out", "adaLN_modulation.0": "adaLN_modulation.0"}
    | {f"feed_forward.w{part}": f"feed_forward.w{part}" for part in (1, 2, 3)}
)
_LUMINA_STACKS = ("layers", "noise_refiner", "context_refiner")

LUMINA2 = Native(
    {stack: (stack, _LUMINA2_BLOCK) for stack in _LUMINA_STACKS},
    _timestep(("t_embedder.mlp.0", "t_embedder.mlp.2"), "time_caption_embed.timestep_embedder")
    | {
        "time_caption_embed.caption_embedder.1": "cap_embedder.1",
        "x_embedder": "x_embedder",
        "norm_out.linear_1": "final_layer.adaLN_modulation.1",
        "norm_out.linear_2": "final_layer.linear",
    },
)

Z_IMAGE = Native(
    {stack: (stack, _Z_IMAGE_BLOCK) for stack in _LUMINA_STACKS},
    {name: name for name in ("t_embedder.mlp.0", "t_embedder.mlp.2", "cap_embedder.1")}
    | {
        "all_x_embedder.2-1": "x_embedder",
        "all_final_layer.2-1.linear": "final_layer.linear",
        "all_final_layer.2-1.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
    },
)

NATIVE = {  # pipeline class -> names; Qwen-Image kept its own, and ComfyUI has no SANA
    "FluxPipeline": FLUX,
    "Lumina2Pipeline": LUMINA2,
    "StableDiffusion3Pipeline": SD3,
    "ZImagePipeline": Z_IMAGE,
}


def native_places(pipeline: str, modules: list[str]) -> dict[str, Place]:
    """The native place of each module of a pipeline class's network that has one."""
    if pipeline == "QwenImagePipeline":
        return {module: (module, 0) for module in modules}
    names = NATIVE.get(pipeline)
    if names is None:
        return {}
    return {module: place for module in modules if (place := names.find(module)) is not None}
