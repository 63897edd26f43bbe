"""A base pipeline without its weights: its network's shape, and what its stock LoRA loader makes of a file."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from safetensors.torch import safe_open, save_file
from torch import nn

from apexgen.backbones.diffusion import BACKBONES
from apexgen.backbones.header import Header
from apexgen.backbones.index import needed_parts, network_class, read_index, stock_class
from apexgen.doctor.names import TEXT
from apexgen.export.native import native_places

ADAPTER = "examined"


@dataclass(frozen=True)
class Base:
    """A pipeline's network by name: enough to say what a LoRA fits."""

    pipeline: str  # its class
    shapes: dict[str, tuple[int, int]]  # of the linear modules and convolutions: rows, columns

    def find(self, name: str) -> list[str]:
        """The modules a LoRA calls `name`, in diffusers' words or the original release's, with dots or without."""
        return self._names.get(name, [])

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for module, (native, _) in native_places(self.pipeline, list(self.shapes)).items():
            names.setdefault(native, []).append(module)
        names |= {module: [module] for module in self.shapes}
        return names | {name.replace(".", "_"): modules for name, modules in names.items()}


def open_empty(folder: Path) -> Any:
    """The stock pipeline of a folder with nothing but its transformer, its weights zero.

    ValueError when the folder is missing, is no pipeline, of a family without an adapter, or says of no transformer.
    """
    index = read_index(folder)
    name = index["_class_name"]
    if name not in BACKBONES:
        raise ValueError(f"{folder} is a {name}: apexgen knows {', '.join(sorted(BACKBONES))}")
    network, pipeline = network_class(folder, index), stock_class(name)
    with torch.device("meta"):
        transformer = network.from_config(network.load_config(folder, subfolder="transformer"))
    # Zeros that take no memory: the loader puts an adapter where the weight beside it is, and meta would swallow it.
    zeros = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in transformer.state_dict().items()}
    transformer.load_state_dict(zeros, assign=True)
    return pipeline(**dict.fromkeys(needed_parts(pipeline)) | {"transformer": transformer})


def describe(pipeline: Any) -> Base:
    """What the doctor needs to know of an opened pipeline."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    modules = pipeline.transformer.named_modules()
    shapes = {name: tuple(module.weight.shape[:2]) for name, module in modules if isinstance(module, kinds)}
    return Base(type(pipeline).__name__, shapes)


def try_loading(pipeline: Any, file: Path, header: Header) -> dict[str, float]:
    """The modules on which the pipeline's own loader lets a file take effect, and the scale of each.

    The loader is given ones in place of the factors, so that a product's entry over its rank is the scale that it
    applies, be it baked in or kept beside. A text encoder's part is left out where the loader would put it in one.
    ValueError with the loader's reason when it refuses the file.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    left_out = TEXT if hasattr(pipeline, "load_lora_into_text_encoder") else ()
    with tempfile.TemporaryDirectory() as folder, _silence():
        save_file(_ones(file, header, left_out), Path(folder) / file.name, metadata=header.metadata or None)
        try:
            pipeline.load_lora_weights(folder, weight_name=file.name, adapter_name=ADAPTER)
        except Exception as error:  # a converter meets a stranger's file: anything may come
            reason = str(error).strip().splitlines() or [""]
            raise ValueError(f"{type(error).__name__}: {reason[0][:160]}") from None
    layers = {
        name: module for name, module in pipeline.transformer.named_modules() if isinstance(module, BaseTunerLayer)
    }
    scales = {name: _scale(module) for name, module in layers.items()}
    return {name: scale for name, scale in scales.items() if scale is not None}


def _scale(module: Any) -> float | None:
    if ADAPTER not in getattr(module, "lora_A", {}):
        return None
    down, up = module.lora_A[ADAPTER].weight.detach(), module.lora_B[ADAPTER].weight.detach()
    if down.is_meta or up.is_meta:  # the loader made a place and found nothing for it
        return None
    product = up[0].flatten() @ down[:, 0].reshape(len(down), -1)[:, 0]
    return float(module.scaling[ADAPTER] * product / len(down))


def _ones(file: Path, header: Header, left_out: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Stand-ins for a file's tensors but those whose names begin so: scalars, which are alphas, are its own."""
    tensors = {}
    with safe_open(file, framework="pt") as saved:
        for name, entry in header.tensors.items():
            if name.startswith(left_out):
                continue
            small = len(entry.shape) < 2
            tensors[name] = saved.get_tensor(name) if small else torch.ones(entry.shape)
    return tensors


@contextmanager
def _silence() -> Iterator[None]:
    """Without the loader's own warnings: what it did is read off the network."""
    from diffusers.utils import logging as diffusers_logging

    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity(logging.CRITICAL)
    try:
        with catch_warnings():
            simplefilter("ignore")
            yield
    finally:
        diffusers_logging.set_verbosity(level)
