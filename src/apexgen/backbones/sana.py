"""SANA (Xie et al., 2024), https://arxiv.org/abs/2410.10629.

Linear attention, one text encoder, no pooled condition.
"""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.backbones.cut import warn_of_cut
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

    @property
    def instruction(self) -> list[str] | None:
        """What the stock call puts before a prompt, where the tokenizer has room for both; the embedded one has not."""
        stock = signature(type(self.pipeline).__call__).parameters["complex_human_instruction"].default
        tokenizer = self.pipeline.tokenizer
        tokens = tokenizer.encode("\n".join(stock), verbose=False)  # it would warn of a length that it never reads
        needed = len(tokens) + self.max_tokens - 2  # the sum that the stock pipeline makes
        return stock if needed <= tokenizer.model_max_length else None

    def _encode_text(self, prompts: Sequence[str]) -> Condition:
        """The empty prompt becomes what the stock pipeline guides away from: no instruction either."""
        self._warn_of_cut(prompts)
        embeds, mask, null, null_mask = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=not all(prompts),
            max_sequence_length=self.max_tokens,
            complex_human_instruction=self.instruction,
        )
        if all(prompts):
            return Condition(embeds, mask)
        empty = torch.tensor([not prompt for prompt in prompts], device=embeds.device)
        return Condition(embeds, mask).drop(empty, Condition(null, null_mask))

    def _warn_of_cut(self, prompts: Sequence[str]) -> None:
        tokenizer, before = self.pipeline.tokenizer, "\n".join(self.instruction or [])
        beginning = len(tokenizer.encode(before)) - 2 if before else 0  # of the instruction, which is no prompt's
        texts = [before + prompt for prompt in prompts]
        warn_of_cut(tokenizer, [ids[beginning:] for ids in tokenizer(texts).input_ids], self.max_tokens)

    def pipeline_arguments(self, steps: int, guidance: float) -> dict[str, Any]:
        stock: dict[str, Any] = {"use_resolution_binning": False}
        if self.instruction is None:
            stock["complex_human_instruction"] = None
        return super().pipeline_arguments(steps, guidance) | stock
