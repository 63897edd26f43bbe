"""What apexgen needs of a text-to-image model: a velocity field, its text and picture codecs, and its LoRA targets."""

import gc
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from apexgen.backbones.held import Weights
from apexgen.backbones.quiet import quiet
from apexgen.backbones.two_times import SecondTime
from apexgen.condition import Condition
from apexgen.precision import lowered
from apexgen.shift import Shift
from apexgen.size import Size

# What diffusers calls the linear modules that a LoRA adapts, by the end of their names.
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_ATTENTION = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")  # of a text stream beside the picture's
FEED_FORWARD = ("net.0.proj", "net.2")
TIME = ("timestep_embedder.linear_1", "timestep_embedder.linear_2")


@contextmanager
def fast_attention(device: torch.device) -> Iterator[None]:
    """On a CPU, the backward pass of torch's fused attention costs several times the plain one for short texts."""
    if device.type != "cpu":
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def to_patches(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) as one token a patch of 2 x 2, (B, h w / 4, 4 C)."""
    return nn.functional.pixel_unshuffle(latents, 2).flatten(2).mT


def from_patches(tokens: Tensor, height: int, width: int) -> Tensor:
    """The latents (B, C, height, width) of patches: the inverse of to_patches."""
    return nn.functional.pixel_shuffle(tokens.mT.unflatten(2, (height // 2, width // 2)), 2)


def _applied(part: nn.Module) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A forward hook that puts a module's output through a further one."""
    return lambda module, inputs, output: part(output)


class Backbone(ABC):
    """One family of pretrained pipelines behind apexgen's conventions.

    As a function (x, t, r, c) -> v it is a Velocity: t = 0 is data, t = 1 noise, v = z - x. A stock network ignores
    r; `give_second_time` makes it read it.
    """

    family: ClassVar[str]  # its name in messages
    lora_targets: ClassVar[tuple[str, ...]]  # names of the linear modules that a LoRA adapts
    oldest_diffusers: ClassVar[tuple[int, int]] = (0, 36)  # in which the family works as it should
    may_lack: ClassVar[tuple[str, ...]] = ()  # parts that a folder of the family may name as none
    time_embedder: ClassVar[str]  # the network's module that makes a vector of its time
    text_embedder: ClassVar[str]  # the module whose output is what attention is given of the text
    pooled_embedder: ClassVar[str | None] = None  # the one that projects the pooled vector
    packs: ClassVar[bool] = False  # whether the stock pipeline holds its latents as patches
    scheduler_config: ClassVar[dict[str, Any]] = {"shift": 1.0, "num_train_timesteps": 1000}  # plain steps, exported

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.network: Any = pipeline.transformer
        self.precision: torch.dtype | None = None  # autocast inside the network; None: as its weights are
        self.weights: Weights = "float32"  # how the network's own are held
        self.size: Size | None = None  # of its pictures; None: a square of native_size
        self.task_lora: Path | None = None  # a user's LoRA file that the network has
        self.adapters: tuple[str, ...] = ()  # of the network before it has a student's, and always on
        self.computes_on: torch.device | None = None  # where weights that live elsewhere are brought to be used
        self.second: SecondTime | None = None  # where the network reads r; a stock one does not
        parts = pipeline.components.items()
        self.text_parts = [name for name, part in parts if name.startswith("text_encoder") and part is not None]
        self.open_text: Callable[[], Any] | None = None  # opens a pipeline of those that are not in memory
        self.open_network: Callable[[torch.device], Any] | None = None  # opens a network left on the disk
        self.text_widths: tuple[int, int | None] | None = None  # of what the encoders make, where it is known
        for module in pipeline.components.values():
            if isinstance(module, nn.Module):
                module.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.computes_on or next(self.network.parameters()).device

    @property
    def lora_excluded(self) -> tuple[str, ...]:
        """Modules that fit lora_targets but get no gradient: nothing reads what they make."""
        return ()

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """The longest prompt, in tokens, with all that the family puts around it."""

    @property
    def instruction(self) -> list[str] | None:
        """The lines that a stock call puts before a prompt unless told otherwise, in a family that has such."""
        return None

    @property
    def native_size(self) -> int:
        """Pixels a side of the pictures the network was trained at."""
        side = getattr(self.network.config, "sample_size", None) or self.pipeline.default_sample_size
        return int(side * self.pipeline.vae_scale_factor)

    @property
    def sides(self) -> Size:
        """Height and width in pixels of what it draws."""
        return self.size or Size(self.native_size, self.native_size)

    @property
    def channels(self) -> int:
        """C of the latents."""
        return int(self.pipeline.vae.config.latent_channels)

    @property
    def size_multiple(self) -> int:
        """What a side in pixels is a multiple of; in most families a patch is 2 x 2 latents."""
        return 2 * int(self.pipeline.vae_scale_factor)

    @property
    def largest_size(self) -> int | None:
        """The longest side in pixels, where the network has places for no more."""
        axes = getattr(self.network.config, "axes_lens", None)  # places of the text, in rows and in columns
        return None if axes is None else int(min(axes[1:]) * self.size_multiple)

    def __call__(self, x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        """The velocity at x (B, C, H, W), times (B, 1, 1, 1) in [0, 1] float32, condition of B rows; like x."""
        if self.second is not None:
            self.second.tell(t, r)
        with self._shifted(c.after), lowered(self.precision, self.weights, x.device.type):
            return self.velocity(x, t, c).to(x.dtype)

    @contextmanager
    def _shifted(self, shift: Shift | None) -> Iterator[None]:
        """Inside, what the network's projections make of the text and of the pooled vector is shifted."""
        hooks = []
        if shift is not None:
            for name, part in ((self.text_embedder, shift.embeds), (self.pooled_embedder, shift.pooled)):
                if name is not None and part is not None:
                    # First of all hooks: others see what attention is given.
                    hooks.append(self.network.get_submodule(name).register_forward_hook(_applied(part), prepend=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def projected_widths(self) -> tuple[int, int | None]:
        """Channels of the text and of the pooled vector, if there is one, after the network's own projections."""
        text, pooled = (
            None if name is None else len([*self.network.get_submodule(name).parameters()][-1])
            for name in (self.text_embedder, self.pooled_embedder)
        )
        assert text is not None
        return text, pooled

    def encoded_widths(self) -> tuple[int, int | None]:
        """The same of what the encoders make of a prompt."""
        if self.text_widths is None:
            self.text_widths = self.encode_text([""]).widths()
        return self.text_widths

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        """The network's output as our velocity of x (B, C, H, W): the family's time scale, sign and argument names."""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The network's blocks, whose output, or the last part of it, is the picture's tokens (B, N, width).

        Empty where a family's network keeps them elsewhere and its adapter does not say where.
        """
        return getattr(self.network, "transformer_blocks", ())

    @property
    def width(self) -> int:
        """The length of a token between two blocks."""
        return int(self.network.config.num_attention_heads * self.network.config.attention_head_dim)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, by the pipeline's own encoders; a warning of those that they cut."""
        if not self.holds_text:
            self._fetch_text()
        with quiet():  # they have a notice of their own for every text, padding and all
            return self._encode_text(prompts)

    @property
    def holds_text(self) -> bool:
        """Whether the text encoders are in memory; where not, the first text to be encoded fetches them."""
        return all(getattr(self.pipeline, name) is not None for name in self.text_parts)

    def _fetch_text(self) -> None:
        assert self.open_text is not None, "the text encoders are gone"
        opened = self.open_text()
        for name in self.text_parts:
            setattr(self.pipeline, name, getattr(opened, name).to(self.device).eval().requires_grad_(False))

    @abstractmethod
    def _encode_text(self, prompts: Sequence[str]) -> Condition:
        """`encode_text` in the family's own way."""

    def encode_text_in_chunks(self, prompts: Sequence[str], chunk: int) -> Condition:
        """`encode_text`, at most `chunk` prompts at once; the result is on the CPU."""
        parts = [self.encode_text(prompts[start : start + chunk]).to("cpu") for start in range(0, len(prompts), chunk)]
        return Condition.concatenate(parts)

    def forget_encoders(self) -> None:
        """Free the text encoders and the encoding half of the autoencoder, once all is encoded; it still decodes."""
        for name in self.text_parts:
            setattr(self.pipeline, name, None)
        self.forget_picture_encoder()

    def forget_picture_encoder(self) -> None:
        """Free the encoding half of the autoencoder, where no picture is to be encoded."""
        for name in ("encoder", "quant_conv"):
            if hasattr(self.pipeline.vae, name):
                setattr(self.pipeline.vae, name, nn.Module())  # Qwen-Image's looks into its encoder as it decodes
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def encode_image(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to latents (B, C, h, w), with the family's scale and shift."""
        encoded, config = self.pipeline.vae.encode(pictures), self.pipeline.vae.config
        if hasattr(encoded, "latent_dist"):
            latents = encoded.latent_dist.mode()
        else:
            latents = encoded.latent if hasattr(encoded, "latent") else encoded.latents  # DC-AE | tiny autoencoder
        return (latents - (config.get("shift_factor") or 0)) * config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to pictures (B, 3, H, W) in [-1, 1]."""
        vae = self.pipeline.vae
        return vae.decode(latents / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0)).sample

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """(C, h, w) of a picture of these pixels, by default of `size`; ValueError for a size the family can't draw."""
        size = Size(height or self.sides.height, width or self.sides.width)
        nearest = Size(*map(self._nearest_side, size))
        if size != nearest:
            limit = f" up to {self.largest_size}" if self.largest_size else ""
            raise ValueError(
                f"size = {size.written!r}: {self.family} wants multiples of {self.size_multiple}{limit}; "
                f"write --size {nearest.written}, or model.size = {json.dumps(nearest.written)}"
            )
        factor = self.pipeline.vae_scale_factor
        return self.channels, size.height // factor, size.width // factor

    def _nearest_side(self, pixels: int) -> int:
        multiple = self.size_multiple
        return max(multiple, min(round(pixels / multiple) * multiple, self.largest_size or pixels + multiple))

    def pack(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) as the stock pipeline takes and returns them."""
        return to_patches(latents) if self.packs else latents

    def unpack(self, latents: Tensor) -> Tensor:
        """The inverse of `pack`, for pictures of `size`: to latents (B, C, h, w)."""
        return from_patches(latents, *self.latent_shape()[1:]) if self.packs else latents

    def pipeline_arguments(self, steps: int, guidance: float) -> dict[str, Any]:
        """How to call the stock pipeline for `steps` plain Euler steps (guidance 1 is none)."""
        _, height, width = self.latent_shape()
        return {
            "num_inference_steps": steps,
            "sigmas": [1 - step / steps for step in range(steps)],  # the default grid may end in a step of 0.001
            "guidance_scale": guidance,
            "height": height * self.pipeline.vae_scale_factor,
            "width": width * self.pipeline.vae_scale_factor,
            "max_sequence_length": self.max_tokens,
        }
