"""Complete tiny pipelines of every family, random weights and all, made from nothing: no file is downloaded.

Networks are two blocks of 16 to 32 channels; schedulers, scales and shifts are set so that a forgotten one shows.
"""

import string
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

SIZE = 64  # pixels a side: latents of 8 x 8
WIDTH = 16  # of every text encoder
WORDS = "a photo of the red blue white circle ring rings cross square two three".split()
LETTERS = [*string.ascii_letters, *string.digits, *".,:;-<>|'_/"]


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


def new_clip(kind):
    """A CLIP's tokenizer and text encoder; `kind` is the encoder's class."""
    from transformers import CLIPTextConfig, CLIPTokenizer

    names = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *[f"{letter}</w>" for letter in LETTERS]]
    tokenizer = CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=24)
    config = CLIPTextConfig(
        vocab_size=len(names),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return tokenizer, kind(config)


def new_t5(width):
    """A T5's tokenizer and encoder."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = [*[(f"\u2581{word}", -1.0) for word in WORDS], ("\u2581", -2.0), *[(letter, -5.0) for letter in LETTERS]]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = T5Tokenizer(vocab=special + pieces, extra_ids=0, model_max_length=32)
    config = T5Config(
        vocab_size=len(special + pieces),
        d_model=width,
        d_kv=8,
        d_ff=width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return tokenizer, T5EncoderModel(config)


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


BUILDERS = {"sd3": new_sd3, "flux": new_flux, "schnell": new_schnell}


def build(family: str, folder: Path) -> Path:
    """Write the tiny pipeline of a family to folder/family."""
    torch.manual_seed(0)
    BUILDERS[family]().save_pretrained(folder / family)
    return folder / family
