"""Z-Image (Z-Image team, 2025), https://arxiv.org/abs/2511.22699.

A language model that reads the prompt as a message of a chat; texts of their own lengths, so no mask inside.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apexgen.backbones.base import ATTENTION, Backbone
from apexgen.backbones.cut import warn_of_cut
from apexgen.condition import Condition


class ZImage(Backbone):
    """ZImagePipeline: the network's time is 0 at noise and 1 at data, it predicts x - z, and takes lists of samples."""

    family = "Z-Image"
    oldest_diffusers = (0, 38)  # before, it can't run in bfloat16 on float32 weights
    time_embedder = "t_embedder"
    text_embedder = "cap_embedder"
    native_size = 1024
    lora_targets = (
        *ATTENTION,
        *(f"feed_forward.w{part}" for part in (1, 2, 3)),
        "t_embedder.mlp.0",
        "t_embedder.mlp.2",
        "all_final_layer.2-1.linear",
    )

    @property
    def max_tokens(self) -> int:
        return min(512, int(self.pipeline.tokenizer.model_max_length))

    def velocity(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        texts = [embeds[mask] for embeds, mask in zip(c.embeds, c.mask, strict=True)]
        frames = self.network(list(x.unsqueeze(2)), 1 - t.flatten(), texts, return_dict=False)[0]
        return -torch.stack(frames).squeeze(2)

    def _encode_text(self, prompts: Sequence[str]) -> Condition:
        tokenizer = self.pipeline.tokenizer
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True, enable_thinking=True)
        warn_of_cut(tokenizer, tokenizer(texts).input_ids, self.max_tokens)
        embeds, _ = self.pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=self.max_tokens
        )
        masks = [torch.ones_like(text[:, 0], dtype=torch.bool) for text in embeds]
        return Condition(pad_sequence(embeds, batch_first=True), pad_sequence(masks, batch_first=True))

    def pipeline_arguments(self, steps: int, guidance: float) -> dict[str, Any]:
        """As everywhere, but the stock pipeline's guidance is the part above 1: 0 is none."""
        return super().pipeline_arguments(steps, guidance) | {"guidance_scale": guidance - 1}
