"""FLUX.1, dev and schnell (Black Forest Labs, 2024), https://github.com/black-forest-labs/flux.

A T5 for the tokens, a CLIP for the pooled condition, no mask: the network was trained to see the padding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apexgen.backbones.base import ATTENTION, FEED_FORWARD, TEXT_ATTENTION, TIME, Backbone, from_patches, to_patches
from apexgen.backbones.cut import warn_of_cut, warn_of_cut_by_clip
from apexgen.condition import Condition


class Flux(Backbone):
    """FluxPipeline: the network wants t and patches of 2 x 2 latents, and predicts z - x, which is ours.

    dev was distilled to read a guidance; it is told the same one always, in training and in the exported call.
    In bfloat16 the network rounds its time too, in the stock pipeline as here.
    """

    family = "FLUX.1"
    time_embedder = "time_text_embed.timestep_embedder"
    packs = True
    text_embedder = "context_embedder"
    pooled_embedder = "time_text_embed.text_embedder"
    guidance = 3.5  # what dev is told
    lora_targets = (*ATTENTION, *TEXT_ATTENTION, *FEED_FORWARD, "proj_mlp", *TIME, "proj_out")

    @property
    def max_tokens(self) -> int:
        longest = 512 if self.network.config.guidance_embeds else 256  # dev | schnell
        return min(longest, int(self.pipeline.tokenizer_2.model_max_length))

    def velocity(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        batch, _, height, width = x.shape
        rows, columns = (torch.arange(side // 2, device=x.device) for side in (height, width))
        guided = self.network.config.guidance_embeds
        patches = self.network(
            hidden_states=to_patches(x),
            encoder_hidden_states=c.embeds,
            pooled_projections=c.pooled,
            timestep=t.flatten(),
            guidance=torch.full((batch,), self.guidance, device=x.device) if guided else None,
            img_ids=torch.cartesian_prod(rows.new_zeros(1), rows, columns).float(),
            txt_ids=torch.zeros(c.embeds.shape[1], 3, device=x.device),
            return_dict=False,
        )[0]
        return from_patches(patches, height, width)

    def _encode_text(self, prompts: Sequence[str]) -> Condition:
        tokens = self.pipeline.tokenizer_2(list(prompts)).input_ids
        warn_of_cut(self.pipeline.tokenizer_2, tokens, self.max_tokens)
        warn_of_cut_by_clip(self.pipeline.tokenizer, prompts, tokens, self.max_tokens)
        embeds, pooled, _ = self.pipeline.encode_prompt(list(prompts), max_sequence_length=self.max_tokens)
        return Condition(embeds, torch.ones_like(embeds[..., 0], dtype=torch.bool), pooled)

    def pipeline_arguments(self, steps: int, guidance: float) -> dict[str, Any]:
        told = {"guidance_scale": self.guidance}
        if guidance != 1:
            told |= {"true_cfg_scale": guidance, "negative_prompt": ""}
        return super().pipeline_arguments(steps, guidance) | told
