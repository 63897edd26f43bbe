"""SANA (Xie et al., 2024), https://arxiv.org/abs/2410.10629.

Linear attention, one text encoder, no pooled condition.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from apexgen.backbones.base import Backbone, warn_of_cut
from apexgen.condition import Condition


class Sana(Backbone):
    """SanaPipeline: the network wants 1000 t (times its timestep_scale) and predicts z - x, which is ours."""

    family = "SANA"
    time_embedder = "time_embed.emb.timestep_embedder"
    text_embedder = "caption_norm"
    size_multiple = 32  # the stock pipeline refuses anything else
    lora_targets = (
        "attn1.to_q",
        "attn1.to_k",
        "attn1.to_v",
        "attn1.to_out.0",
        "attn2.to_q",
        "attn2.to_k",
        "attn2.to_v",
        "attn2.to_out.0",
        "ff.conv_inverted",
        "ff.conv_point",
        "caption_projection.linear_1",
        "caption_projection.linear_2",
        "time_embed.linear",
        "proj_out",
    )

    def velocity(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        time = t.flatten() * (1000 * self.network.config.timestep_scale)
        return self.network(x, c.embeds, time, encoder_attention_mask=c.mask, return_dict=False)[0]

    @property
    def max_tokens(self) -> int:
        return min(300, int(self.pipeline.tokenizer.model_max_length))

    def _encode_text(self, prompts: Sequence[str]) -> Condition:
        warn_of_cut(self.pipeline.tokenizer, self.pipeline.tokenizer(list(prompts)).input_ids, self.max_tokens)
        embeds, mask, _, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_tokens,
            complex_human_instruction=None,
        )
        return Condition(embeds, mask)

    def pipeline_arguments(self, steps: int, guidance: float) -> dict[str, Any]:
        stock = {"complex_human_instruction": None, "use_resolution_binning": False}
        return super().pipeline_arguments(steps, guidance) | stock
