"""A user's own LoRA under the student: read by the stock pipeline, then part of the teacher.

merge: its weights are added to the network's, which is plain again. stack: it stays beside them as an adapter that is
always on, and the network's own weights are untouched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from apexgen.backbones.base import Backbone
from apexgen.backbones.header import read_header, refuse_quantised

TASK = "task"  # the adapter's name


def add_task_lora(backbone: Backbone, file: Path, mode: Literal["merge", "stack"]) -> None:
    """Load a LoRA file onto a backbone's network, once and before a student is made of it.

    Whatever types its tensors have, each is cast to the network's.
    Raises ValueError, one line, for a file that is missing, broken, not safetensors, quantised or not finite, for
    another network, or of more than the transformer.
    """
    load_task_lora(backbone.pipeline, file)
    backbone.task_lora = file
    if mode == "merge":
        backbone.pipeline.fuse_lora(components=["transformer"], adapter_names=[TASK])
        backbone.pipeline.unload_lora_weights()
    else:
        backbone.adapters = (TASK,)
    backbone.network.requires_grad_(False)


def load_task_lora(pipeline: Any, file: Path) -> None:
    """Load a LoRA file into a stock pipeline; ValueError where not all of it takes effect."""
    refuse_quantised(file, read_header(file))
    if file.suffix != ".safetensors":
        raise ValueError(f"{file}: diffusers reads a .safetensors file; write {file.with_suffix('.safetensors')}")
    with _in_one_line(file):
        weights = pipeline.lora_state_dict(file.parent, weight_name=file.name)
        strange = [name for name in weights if not name.startswith("transformer.")]
        if strange:
            raise ValueError(f"{strange[0]} is not of the transformer; give a LoRA of the transformer alone")
        if not all(weight.isfinite().all() for weight in weights.values() if isinstance(weight, torch.Tensor)):
            raise ValueError("it holds weights that are not finite")
        pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=TASK)
        named = sum(name.endswith("lora_A.weight") for name in weights)
        loaded = count_adapted(pipeline.transformer, TASK)
        if not loaded or loaded != named:
            raise ValueError(f"{loaded} of {named} modules took effect; is it for another model?")


def count_adapted(network: nn.Module, adapter: str) -> int:
    """How many of a network's modules have the adapter of that name."""
    return sum(adapter in getattr(module, "lora_A", ()) for module in network.modules())


@contextmanager
def _in_one_line(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines()
        raise ValueError(f"{file}: {lines[0]}") from error
