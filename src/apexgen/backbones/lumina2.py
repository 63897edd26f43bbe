"""Lumina-Image 2.0 (Qin et al., 2025), https://arxiv.org/abs/2503.21758.

A language model that reads the prompt after a system prompt, and a mask.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apexgen.backbones.base import ATTENTION, TIME, Backbone
from apexgen.backbones.cut import warn_of_cut
from apexgen.condition import Condition


class Lumina2(Backbone):
    """Lumina2Pipeline: the network's time is 0 at noise and 1 at data, and it predicts x - z."""

    family = "Lumina-Image 2.0"
    time_embedder = "time_caption_embed.timestep_embedder"
    text_embedder = "time_caption_embed.caption_embedder"
    lora_targets = (
        *ATTENTION,
        *(f"feed_forward.linear_{part}" for part in (1, 2, 3)),
        *TIME,
        "norm_out.linear_2",
    )

    @property
    def max_tokens(self) -> int:
        return min(256, int(self.pipeline.tokenizer.model_max_length))

    @property
    def native_size(self) -> int:
        return int(self.pipeline.default_image_size)

    def velocity(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        return -self.network(
            hidden_states=x,
            timestep=1 - t.flatten(),
            encoder_hidden_states=c.embeds,
            encoder_attention_mask=c.mask,
            return_dict=False,
        )[0]

    def _encode_text(self, prompts: Sequence[str]) -> Condition:
        """The empty prompt becomes what the network was trained on without one: no system prompt either."""
        texts = [f"{self.pipeline.system_prompt} <Prompt Start> {prompt}" for prompt in prompts]
        warn_of_cut(self.pipeline.tokenizer, self.pipeline.tokenizer(texts).input_ids, self.max_tokens)
        embeds, mask, null, null_mask = self.pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=not all(prompts), max_sequence_length=self.max_tokens
        )
        if all(prompts):
            return Condition(embeds, mask.bool())
        empty = torch.tensor([not prompt for prompt in prompts], device=embeds.device)
        return Condition(embeds, mask.bool()).drop(empty, Condition(null, null_mask.bool()))

    def pipeline_arguments(self, steps: int, guidance: float) -> dict[str, Any]:
        return super().pipeline_arguments(steps, guidance) | {"cfg_normalization": False}
