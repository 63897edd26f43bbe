"""Complete tiny pipelines of every family, random weights and all, made from nothing: no file is downloaded.

Networks are two blocks of 16 to 32 channels; schedulers, scales and shifts are set so that a forgotten one shows.
"""

from inspect import signature
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

from apexgen.size import Size
from text_encoders import TINY, WIDTH, new_clip, new_gemma, new_qwen_tokenizer, new_t5

SIZE = 64  # pixels a side: latents of 8 x 8
SQUARE = Size(SIZE, SIZE)


def new_vae():
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=1.5,
        shift_factor=0.06,
        sample_size=SIZE,
    )


def new_sd3():
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    tokenizer, text_encoder = new_clip(CLIPTextModelWithProjection)
    tokenizer_2, text_encoder_2 = new_clip(CLIPTextModelWithProjection)
    tokenizer_3, text_encoder_3 = new_t5(2 * WIDTH)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=new_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        text_encoder_3=text_encoder_3,
        tokenizer_3=tokenizer_3,
    )


def new_flux(guidance_embeds=True):
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    tokenizer, text_encoder = new_clip(CLIPTextModel)
    tokenizer_2, text_encoder_2 = new_t5(WIDTH)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance_embeds),
        vae=new_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )


def new_schnell():
    return new_flux(guidance_embeds=False)


def new_qwen():
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.5, 2.0, 0.8],
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    pipeline = QwenImagePipeline(scheduler, vae, None, None, transformer)
    tokenizer = new_qwen_tokenizer(pipeline.prompt_template_encode.format("a"))
    width, heads = {"hidden_size": WIDTH, "intermediate_size": WIDTH}, {"num_attention_heads": 2}
    config = Qwen2_5_VLConfig(
        text_config=width | heads | {
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
        },
        vision_config=width | {"depth": 1, "num_heads": 2, "out_hidden_size": WIDTH},
    )  # fmt: skip
    pipeline.register_modules(text_encoder=Qwen2_5_VLForConditionalGeneration(config), tokenizer=tokenizer)
    return pipeline


def new_lumina2():
    from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

    tokenizer, text_encoder = new_gemma(256)
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=32,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(8, 4, 4),
        cap_feat_dim=WIDTH,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
    return Lumina2Pipeline(transformer, scheduler, new_vae(), text_encoder, tokenizer)


def new_zimage():
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = new_qwen_tokenizer("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n")
    tokenizer.chat_template = template
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        **TINY,
        num_key_value_heads=1,
        head_dim=8,
    )
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token)  # empty memory before diffusers 0.39
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return ZImagePipeline(scheduler, new_vae(), Qwen3Model(config), tokenizer, transformer)


def new_sana():
    """With the autoencoder of the released ones, and the norm of queries and keys of SANA 1.5."""
    from diffusers import AutoencoderDC, SanaPipeline, SanaTransformer2DModel

    blocks = {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in {
            "block_types": ("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
            "block_out_channels": (8, 8, 8, 8),
            "layers_per_block": (1, 1, 1, 1),
            "qkv_multiscales": ((), (), (), (5,)),
        }.items()
    }
    vae = AutoencoderDC(latent_channels=4, attention_head_dim=8, scaling_factor=0.41, **blocks)
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        sample_size=8,
        qk_norm="rms_norm_across_heads",
        timestep_scale=0.5,
    )
    instruction = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    tokenizer, text_encoder = new_gemma(2**30, " ".join(instruction))  # room for it, as the released one has
    return SanaPipeline(tokenizer, text_encoder, vae, transformer, FlowMatchEulerDiscreteScheduler(shift=3.0))


BUILDERS = {
    "sd3": new_sd3,
    "flux": new_flux,
    "schnell": new_schnell,
    "qwen": new_qwen,
    "lumina2": new_lumina2,
    "zimage": new_zimage,
    "sana": new_sana,
}


def build(family: str, folder: Path) -> Path:
    """Write the tiny pipeline of a family to folder/family."""
    torch.manual_seed(0)
    BUILDERS[family]().save_pretrained(folder / family)
    return folder / family
