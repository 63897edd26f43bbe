"""Qwen-Image (Wu et al., 2025), https://arxiv.org/abs/2508.02324.

A language model that reads the prompt inside a template, a mask, an autoencoder of video made to keep one frame.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apexgen.backbones.base import ATTENTION, FEED_FORWARD, TEXT_ATTENTION, TIME, Backbone, from_patches, to_patches
from apexgen.backbones.cut import warn_of_cut
from apexgen.condition import Condition


class QwenImage(Backbone):
    """QwenImagePipeline: the network wants t and patches of 2 x 2 latents, and predicts z - x, which is ours.

    In bfloat16 the network rounds its time too, in the stock pipeline as here.
    """

    family = "Qwen-Image"
    oldest_diffusers = (0, 37)  # before, it attends to the padding of prompts
    time_embedder = "time_text_embed.timestep_embedder"
    packs = True
    text_embedder = "txt_in"
    max_tokens = 512
    lora_targets = (*ATTENTION, *TEXT_ATTENTION, *FEED_FORWARD, *TIME, "proj_out")

    @property
    def lora_excluded(self) -> tuple[str, ...]:
        last = f"transformer_blocks.{len(self.network.transformer_blocks) - 1}"
        unread = ("attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")
        return tuple(f"{last}.{name}" for name in unread)

    @property
    def channels(self) -> int:
        return int(self.pipeline.vae.config.z_dim)

    def velocity(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        height, width = x.shape[2:]
        patches = self.network(
            hidden_states=to_patches(x),
            encoder_hidden_states=c.embeds,
            encoder_hidden_states_mask=None if c.mask.all() else c.mask,  # without one, faster kernels serve
            timestep=t.flatten(),
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
            return_dict=False,
        )[0]
        return from_patches(patches, height, width)

    def _encode_text(self, prompts: Sequence[str]) -> Condition:
        pipeline = self.pipeline
        texts = [pipeline.prompt_template_encode.format(prompt) for prompt in prompts]
        beginning = pipeline.prompt_template_encode_start_idx  # of the template, which the network is not shown
        warn_of_cut(
            pipeline.tokenizer, [ids[beginning:] for ids in pipeline.tokenizer(texts).input_ids], self.max_tokens
        )
        embeds, mask = pipeline.encode_prompt(list(prompts), max_sequence_length=self.max_tokens)
        every = torch.ones_like(embeds[..., 0], dtype=torch.bool)
        return Condition(embeds, every if mask is None else mask.bool())

    @torch.no_grad()
    def encode_image(self, pictures: Tensor) -> Tensor:
        mean, deviation = self._statistics()
        return ((self.pipeline.vae.encode(pictures.unsqueeze(2)).latent_dist.mode() - mean) / deviation).squeeze(2)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics()
        return self.pipeline.vae.decode(latents.unsqueeze(2) * deviation + mean).sample.squeeze(2)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each latent channel, (C, 1, 1, 1)."""
        config = self.pipeline.vae.config
        both = torch.tensor([config.latents_mean, config.latents_std], device=self.pipeline.vae.device)
        mean, deviation = both[..., None, None, None]
        return mean, deviation

    def pipeline_arguments(self, steps: int, guidance: float) -> dict[str, Any]:
        """As everywhere, but the stock pipeline rescales a guided velocity to the length of the unguided one."""
        arguments = super().pipeline_arguments(steps, guidance)
        del arguments["guidance_scale"]  # for networks that were distilled to read it
        return arguments | {"true_cfg_scale": guidance} | ({"negative_prompt": " "} if guidance != 1 else {})
