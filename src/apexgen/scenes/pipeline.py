"""The embedded pipeline: where it is, and its parts, untrained: a stock SanaPipeline of three million parameters."""

from pathlib import Path
from typing import Any

import torch

from apexgen.backbones.hub import find_folder
from apexgen.scenes.prompts import TASKS, captions
from apexgen.scenes.world import SIZE

FOLDER = Path(__file__).with_name("embedded")  # the trained one, shipped with the package
CHANNELS, FACTOR = 8, 8  # of the latents: channels, pixels a side
TOKENS = 20  # longest prompt, start and end included
TEXT_WIDTH = 128


def pipeline_folder(path: str) -> Path:
    """The folder of "scenes", of "hub:owner/name", or of a path; ValueError where the hub or its cache lacks it."""
    return FOLDER if path == "scenes" else find_folder(path)


def new_autoencoder() -> Any:
    """AutoencoderTiny: 64 x 64 pixels to 8 channels of 8 x 8, 0.3 M parameters, most of them in the decoder."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(20, 20, 20, 20),
        decoder_block_out_channels=(32, 32, 32, 32),
        latent_channels=CHANNELS,
    )


def new_tokenizer() -> Any:
    """One token a word of the captions, between a start and an end."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    every = [caption for task in TASKS for held in (False, True) for caption in captions(task, held)]
    words = sorted({word for caption in every for word in caption.text.split()})
    names = ["<pad>", "<bos>", "<eos>", "<unk>", *words]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=TOKENS,
    )


def new_text_encoder(vocabulary: int) -> Any:
    """A two-layer T5 encoder, 0.3 M parameters.

    Not SANA's causal Gemma: in "a ring left of a circle" the word "ring" must know of "left".
    """
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=2,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)


def new_transformer(heads: int = 6, layers: int = 5) -> Any:
    """SanaTransformer2DModel on 8 x 8 latents, 3.3 M parameters, silent at the start: its output is zero."""
    from diffusers import SanaTransformer2DModel

    network = SanaTransformer2DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=heads,
        attention_head_dim=32,
        num_layers=layers,
        num_cross_attention_heads=heads,
        cross_attention_head_dim=32,
        cross_attention_dim=32 * heads,
        caption_channels=TEXT_WIDTH,
        mlp_ratio=2.5,
        sample_size=SIZE // FACTOR,
        patch_size=1,
        interpolation_scale=1.0,  # places are given, not learnt
    )
    for block in network.transformer_blocks:
        torch.nn.init.zeros_(block.attn2.to_out[0].weight)
    torch.nn.init.zeros_(network.proj_out.weight)
    return network


def assemble(vae: Any, tokenizer: Any, text_encoder: Any, transformer: Any) -> Any:
    """The stock pipeline of these parts, with plain Euler steps of the flow."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SanaPipeline

    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    return SanaPipeline(tokenizer, text_encoder, vae, transformer, scheduler)
