"""What apexgen needs of a text-to-image model: a velocity field, its text and picture codecs, and its LoRA targets."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from apexgen.backbones.two_times import SecondTime
from apexgen.condition import Condition


@contextmanager
def fast_attention(device: torch.device) -> Iterator[None]:
    """On a CPU, the backward pass of torch's fused attention costs several times the plain one for short texts."""
    if device.type != "cpu":
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


class Backbone(ABC):
    """One family of pretrained pipelines behind apexgen's conventions.

    As a function (x, t, r, c) -> v it is a Velocity: t = 0 is data, t = 1 noise, v = z - x. A stock network ignores
    r; `give_second_time` makes it read it.
    """

    lora_targets: ClassVar[tuple[str, ...]]  # names of the linear modules that a LoRA adapts
    scheduler_config: ClassVar[dict[str, Any]]  # what an exported folder's scheduler needs for plain Euler steps

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.network: Any = pipeline.transformer
        self.precision: torch.dtype | None = None  # autocast inside the network; None: as its weights are
        self.second: SecondTime | None = None  # where the network reads r; a stock one does not
        for module in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
            module.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def __call__(self, x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        """The velocity at x (B, C, H, W), times (B, 1, 1, 1) in [0, 1] float32, condition of B rows; like x."""
        if self.second is not None:
            self.second.tell(t, r)
        with torch.autocast(x.device.type, dtype=self.precision, enabled=self.precision is not None):
            return self.velocity(x, t, c).to(x.dtype)

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        """The network's output as our velocity: the family's time scale, sign and argument names."""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The network's blocks, whose output, or the last part of it, is the picture's tokens (B, N, width).

        None where a family's network keeps them elsewhere and its adapter does not say where.
        """
        return getattr(self.network, "transformer_blocks", ())

    @property
    def width(self) -> int:
        """The length of a token between two blocks."""
        return int(self.network.config.num_attention_heads * self.network.config.attention_head_dim)

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, by the pipeline's own encoders. ValueError for a prompt it would cut."""

    def encode_text_in_chunks(self, prompts: Sequence[str], chunk: int) -> Condition:
        """`encode_text`, at most `chunk` prompts at once; the result is on the CPU."""
        parts = [self.encode_text(prompts[start : start + chunk]).to("cpu") for start in range(0, len(prompts), chunk)]
        return Condition.concatenate(parts)

    @abstractmethod
    def encode_image(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to latents (B, C, h, w), with the family's scale and shift."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to pictures (B, 3, H, W) in [-1, 1]."""

    @abstractmethod
    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """(C, h, w) of a picture of this size in pixels; by default the size the network was trained at."""

    @abstractmethod
    def pipeline_arguments(self, steps: int, guidance: float) -> dict[str, Any]:
        """How to call the stock pipeline for `steps` plain Euler steps (guidance 1 is none)."""
