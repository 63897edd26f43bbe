"""Stable Diffusion 3 and 3.5 (Esser et al., 2024), https://arxiv.org/abs/2403.03206.

Two CLIPs and a T5, a pooled condition, no mask: the network was trained to see the padding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apexgen.backbones.base import ATTENTION, FEED_FORWARD, TEXT_ATTENTION, TIME, Backbone
from apexgen.backbones.cut import warn_of_cut, warn_of_cut_by_clip
from apexgen.condition import Condition


class StableDiffusion3(Backbone):
    """StableDiffusion3Pipeline: the network wants 1000 t and predicts z - x, which is ours."""

    family = "Stable Diffusion 3"
    may_lack = ("text_encoder_3", "tokenizer_3")
    time_embedder = "time_text_embed.timestep_embedder"
    text_embedder = "context_embedder"
    pooled_embedder = "time_text_embed.text_embedder"
    lora_targets = (*ATTENTION, *TEXT_ATTENTION, *FEED_FORWARD, *TIME, "proj_out")

    @property
    def lora_excluded(self) -> tuple[str, ...]:
        return (f"transformer_blocks.{len(self.network.transformer_blocks) - 1}.attn.add_q_proj",)

    @property
    def _reader(self) -> Any:
        """The tokenizer of the encoder that reads the whole prompt; CLIP sums up the beginning of a long one."""
        return self.pipeline.tokenizer if "text_encoder_3" not in self.text_parts else self.pipeline.tokenizer_3

    @property
    def max_tokens(self) -> int:
        return min(256, int(self._reader.model_max_length))

    @property
    def size_multiple(self) -> int:
        return int(self.network.config.patch_size * self.pipeline.vae_scale_factor)

    @property
    def largest_size(self) -> int:
        return int(self.network.config.pos_embed_max_size * self.size_multiple)

    def velocity(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        return self.network(
            hidden_states=x,
            encoder_hidden_states=c.embeds,
            pooled_projections=c.pooled,
            timestep=1000 * t.flatten(),
            return_dict=False,
        )[0]

    def _encode_text(self, prompts: Sequence[str]) -> Condition:
        tokens = self._reader(list(prompts)).input_ids
        warn_of_cut(self._reader, tokens, self.max_tokens)
        warn_of_cut_by_clip(self.pipeline.tokenizer, prompts, tokens, self.max_tokens)
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), None, None, do_classifier_free_guidance=False, max_sequence_length=self.max_tokens
        )
        return Condition(embeds, torch.ones_like(embeds[..., 0], dtype=torch.bool), pooled)
