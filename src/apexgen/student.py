"""One network, three velocities: the student that trains, the teacher it came from, the student's average.

LoRA: the teacher is the same weights with the adapter off; a user's own LoRA stays on. Full tuning: the teacher is a
frozen copy of the tensors.
The average is a dict of tensors run through the same module, so there is never a second network; nor is there for an
objective that wants one to learn the student's samples: its weights are one more such dict, and they train. So is what
the student was at some step. A discriminator is the teacher with a few heads, which train.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from apexgen.backbones.base import Backbone
from apexgen.backbones.targets import lora_names
from apexgen.condition import Condition
from apexgen.discriminator import Discriminator
from apexgen.objectives.base import Nets
from apexgen.shard import Exchanged, is_sharded, like
from apexgen.shift import Shift

ADAPTER = "student"


class Reweighted:
    """A network run with other tensors in place of its own: nothing is copied and nothing is changed."""

    def __init__(self, network: nn.Module, weights: dict[str, Tensor]) -> None:
        self.network, self.weights, self.config = network, weights, network.config
        self.get_submodule = network.get_submodule

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return functional_call(self.network, self.weights, inputs, options)


class Student:
    """The trainable part of a backbone, with its average.

    mode "lora": low-rank weights on `targets`, read by lora_names, scale 1 (alpha = rank); "full": every weight.
    heads: the backbone's blocks that a discriminator reads, where there is to be one. shift: what tells the network's
    two roles apart; a learned one trains along, and is no part of the average.
    """

    def __init__(
        self,
        backbone: Backbone,
        mode: Literal["lora", "full"],
        rank: int,
        targets: str | tuple[str, ...] = (),
        seed: int = 0,
        with_fake: bool = False,
        heads: Sequence[int] = (),
        shift: Shift | None = None,
    ) -> None:
        self.backbone, self.mode, self.rank = backbone, mode, rank
        self.targets = lora_names(backbone, targets)
        self._original: dict[str, Tensor] = {}
        network = backbone.network
        if mode == "lora":
            self._add_adapter(seed)
            if backbone.second is not None:
                backbone.second.requires_grad_(True)
        else:
            self._original = {name: weight.detach().clone() for name, weight in network.named_parameters()}
            network.requires_grad_(True)
        self.weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self.sharded = any(map(is_sharded, self.weights.values()))  # then all that is made from them is
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        copies = {name: weight.detach().clone().requires_grad_() for name, weight in self.weights.items()}
        self._fake = copies if with_fake else {}
        self.kept: dict[str, Tensor] = {}  # what `take_snapshot` found
        blocks = [backbone.blocks[index] for index in heads]
        self.discriminator = Discriminator(self.teacher, blocks, backbone.width, seed) if heads else None
        self.trained = self.weights | {f"fake.{name}": weight for name, weight in self._fake.items()}
        if self.discriminator is not None:
            named = self.discriminator.heads.to(backbone.device).named_parameters()
            self.trained |= {f"head.{name}": weight for name, weight in named}
        self.shift = None if shift is None else shift.to(backbone.device)
        if self.shift is not None:
            named = self.shift.named_parameters()
            self.trained |= {f"shift.{name}": weight for name, weight in named if weight.requires_grad}

    def _add_adapter(self, seed: int) -> None:
        from peft import LoraConfig

        network = self.backbone.network
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.rank,
            target_modules=list(self.targets),
            exclude_modules=list(self.backbone.lora_excluded) or None,
        )
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a stacked adapter's
            torch.manual_seed(seed)  # peft draws the first factors from the global generator
            network.add_adapter(config, adapter_name=ADAPTER)
        for name, weight in network.named_parameters():
            if f".{ADAPTER}." in name:
                weight.data = weight.data.float()  # whatever the base is held in
        for module in network.modules():
            if hasattr(module, "cast_input_dtype_enabled"):  # peft's cast to float32, which autocast would undo
                module.cast_input_dtype_enabled = False
        if self.backbone.adapters:
            network.set_adapters([*self.backbone.adapters, ADAPTER])  # which would train them all
            for name, weight in network.named_parameters():
                weight.requires_grad_(f".{ADAPTER}." in name)

    def nets(self) -> Nets:
        """The three velocities, for an objective, and what else it asked for."""
        fake, snapshot = self.fake if self._fake else None, self.snapshot if self.kept else None
        return Nets(self.backbone, self.teacher, self.ema, fake, snapshot, self.discriminator, self.shift)

    def teacher(self, x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        """The velocity of x (B, C, H, W) the student started from; it knows one time, so r is not read."""
        if self.mode == "full":
            return self._reweighted(self._original)(x, t, t, c)
        with self._adapter_off():
            return self.backbone(x, t, t, c)

    def ema(self, x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        """The velocity of the averaged weights, of x (B, C, H, W)."""
        return self._reweighted(self.average)(x, t, r, c)

    def fake(self, x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        """The velocity of the weights that learn the student's samples x (B, C, H, W)."""
        return self._reweighted(self._fake)(x, t, r, c)

    def snapshot(self, x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        """The velocity of the weights as `take_snapshot` last found them, of x (B, C, H, W)."""
        return self._reweighted(self.kept)(x, t, r, c)

    def take_snapshot(self) -> None:
        """Keep the weights as they are now."""
        self.kept = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def _reweighted(self, weights: dict[str, Tensor]) -> Backbone:
        backbone = copy(self.backbone)
        backbone.network = (Exchanged if self.sharded else Reweighted)(self.backbone.network, weights)
        return backbone

    @contextmanager
    def _adapter_off(self) -> Iterator[None]:
        network = self.backbone.network
        if self.backbone.adapters:  # then the student's alone is silenced: x + 0 y is x, bit for bit
            self._scale(0.0)
        else:
            network.disable_adapters()
        try:
            yield
        finally:
            if self.backbone.adapters:
                self._scale(1.0)
            else:
                network.enable_adapters()

    def _scale(self, scale: float) -> None:
        """The factor of the student's adapter, in every module that has it."""
        for module in self.backbone.network.modules():
            if ADAPTER in getattr(module, "scaling", ()):
                module.set_scale(ADAPTER, scale)

    @torch.no_grad()
    def update_average(self, decay: float, step: int) -> None:
        """average <- d average + (1 - d) weights; d = min(decay, (1 + step) / (10 + step)) lets it start quickly."""
        d = min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [w.detach() for w in self.weights.values()], 1 - d)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the network's own weights are the averaged ones: for sampling and for export."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        _copy(self.average, self.weights)
        try:
            yield
        finally:
            _copy(kept, self.weights)

    def load(self, weights: dict[str, Tensor], average: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
        """Take over saved tensors; the kept ones may be none.

        ValueError when they are not of these names, shapes and types, or not finite.
        """
        for saved, own in ((weights, self.trained), (average, self.average), (kept, self.weights if kept else {})):
            _check(saved, own)
        _copy(weights, self.trained)
        _copy(average, self.average)
        if kept:
            self.take_snapshot()
            _copy(kept, self.kept)


def _check(saved: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    if strange := sorted(saved.keys() ^ own.keys()):
        word = "has" if strange[0] in saved else "lacks"
        raise ValueError(
            f"the checkpoint {word} {strange[0]}: it is of another model, rank or targets than the run's; give a new "
            "folder, or the model.tune, model.rank and model.targets it was made with"
        )
    for name, tensor in saved.items():
        if tensor.shape != own[name].shape:
            sizes = (" x ".join(map(str, shape)) for shape in (tensor.shape, own[name].shape))
            raise ValueError("the checkpoint's {} is {}, the model's {}".format(name, *sizes))
        if tensor.dtype != own[name].dtype:
            raise ValueError(f"the checkpoint's {name} is {tensor.dtype}, the model's {own[name].dtype}")
        if not tensor.isfinite().all():
            raise ValueError(f"the checkpoint's {name} is not finite: go back to an earlier one by removing its folder")


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(like(source[name], tensor))
