"""SANA (Xie et al., 2024), https://arxiv.org/abs/2410.10629.

Linear attention, one text encoder, no pooled condition.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.condition import Condition


class Sana(Backbone):
    """SanaPipeline: the network wants 1000 t (times its timestep_scale) and predicts z - x, which is ours."""

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
    scheduler_config: ClassVar[dict[str, Any]] = {"shift": 1.0, "num_train_timesteps": 1000}

    def velocity(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        time = t.flatten() * (1000 * self.network.config.timestep_scale)
        return self.network(x, c.embeds, time, encoder_attention_mask=c.mask, return_dict=False)[0]

    @property
    def max_tokens(self) -> int:
        """The longest prompt, in tokens, start and end included."""
        return min(300, int(self.pipeline.tokenizer.model_max_length))

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Condition:
        self._check(prompts)
        embeds, mask, _, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_tokens,
            complex_human_instruction=None,
        )
        return Condition(embeds, mask)

    def _check(self, prompts: Sequence[str]) -> None:
        lengths = [len(ids) for ids in self.pipeline.tokenizer(list(prompts)).input_ids]
        for prompt, length in zip(prompts, lengths, strict=True):
            if length > self.max_tokens:
                raise ValueError(
                    f"prompt too long: {length} tokens, at most {self.max_tokens}: {prompt[:60]!r}... Shorten it"
                )

    @torch.no_grad()
    def encode_image(self, pictures: Tensor) -> Tensor:
        encoded = self.pipeline.vae.encode(pictures)
        latents = encoded.latent if hasattr(encoded, "latent") else encoded.latents  # DC-AE | tiny autoencoder
        return latents * self.pipeline.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.pipeline.vae.decode(latents / self.pipeline.vae.config.scaling_factor).sample

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        factor, config = self.pipeline.vae_scale_factor, self.network.config
        sides = [side or config.sample_size * factor for side in (height, width)]
        for name, side in zip(("height", "width"), sides, strict=True):
            if side % 32:  # the stock pipeline refuses anything else
                raise ValueError(f"{name} = {side}: SANA wants a multiple of 32; use {max(32, round(side / 32) * 32)}")
        return config.in_channels, sides[0] // factor, sides[1] // factor

    def pipeline_arguments(self, steps: int, guidance: float) -> dict[str, Any]:
        _, height, width = self.latent_shape()
        factor = self.pipeline.vae_scale_factor
        return {
            "num_inference_steps": steps,
            "sigmas": [1 - step / steps for step in range(steps)],  # the default grid ends in a step of 0.001
            "guidance_scale": guidance,
            "height": height * factor,
            "width": width * factor,
            "max_sequence_length": self.max_tokens,
            "complex_human_instruction": None,
            "use_resolution_binning": False,
        }
