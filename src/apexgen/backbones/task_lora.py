"""A user's own LoRA under the student: read by the stock pipeline, then part of the teacher.

merge: its weights are added to the network's, which is plain again. stack: it stays beside them as an adapter that is
always on, and the network's own weights are untouched.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import nn

from apexgen.backbones.base import Backbone
from apexgen.backbones.header import read_header, refuse_quantised
from apexgen.backbones.quiet import quiet

LORA_FILE = "pytorch_lora_weights.safetensors"  # of an export, as diffusers looks for it
TASK = "task"  # the adapter's name
FORMER = {".lora.down.": ".lora_A.", ".lora.up.": ".lora_B."}  # what diffusers once called the two factors
SCHEDULER = "scheduler"  # what the metadata of a file of ours calls the class of the one that takes its steps
PEFT = "base_model.model."  # how the names begin in a file that PEFT itself has saved


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
        source = file.parent if (scale := peft_scale(file)) is None else _from_peft(file, scale)
        weights = pipeline.lora_state_dict(source, weight_name=file.name)
        for former, factor in FORMER.items():  # the loader renames them too, later
            weights = {name.replace(former, factor): weight for name, weight in weights.items()}
        _check_names(weights, pipeline.transformer)
        _check_pairs(weights)
        if not all(weight.isfinite().all() for weight in weights.values() if isinstance(weight, torch.Tensor)):
            raise ValueError("it holds weights that are not finite")
        pipeline.load_lora_weights(source, weight_name=file.name, adapter_name=TASK)
        if left := {name.removesuffix(".weight") for name in weights} ^ _loaded(pipeline.transformer):
            raise ValueError(f"{min(left)} took no effect; is it for another model?")


def peft_scale(file: Path) -> float | None:
    """The scale of a file that PEFT has saved, told in the adapter_config.json beside it; None for another's file.

    ValueError where it is not there, or tells of more than one scale.
    """
    if not all(name.startswith(PEFT) for name in read_header(file).tensors):
        return None
    config = file.with_name("adapter_config.json")
    if not config.is_file():
        raise ValueError(f"PEFT tells its scale in an adapter_config.json; put it beside the file, as {config}")
    told = json.loads(config.read_text())
    for setting in ("rank_pattern", "alpha_pattern", "use_dora"):
        if told.get(setting):
            raise ValueError(f"{setting} of {config} is not read here; give a LoRA of one rank and alpha")
    return float(told["lora_alpha"] / (told["r"] ** 0.5 if told.get("use_rslora") else told["r"]))


def _from_peft(file: Path, scale: float) -> dict[str, torch.Tensor]:
    """A LoRA under diffusers' names, its scale within one factor."""
    weights = {f"transformer.{name.removeprefix(PEFT)}": weight for name, weight in load_file(file).items()}
    return {name: weight * scale if ".lora_B." in name else weight for name, weight in weights.items()}


def _check_names(weights: dict[str, Any], network: nn.Module) -> None:
    """ValueError for the first that is not of this network; peft would have a line for every one."""
    modules = dict(network.named_modules())
    for name, weight in weights.items():
        if name.startswith("text_encoder"):
            raise ValueError(f"{name} is of a text encoder; give a LoRA of the transformer alone")
        if not name.startswith("transformer."):
            raise ValueError(f"{name} begins otherwise than with transformer., and diffusers reads no such name here")
        place, _, factor = name.removeprefix("transformer.").rpartition(".lora_")
        if factor in ("A.weight", "B.weight") and not _fits(modules.get(place), factor, weight.shape):
            raise ValueError(f"it is for another model: {name} {tuple(weight.shape)} has no place in this one")


def _check_pairs(weights: dict[str, Any]) -> None:
    """ValueError for a factor that is alone, of another rank than its other one, or of whole numbers."""
    for name, weight in weights.items():
        place, found, factor = name.rpartition(".lora_")
        if not found or factor not in ("A.weight", "B.weight"):
            continue
        down, up = (f"{place}.lora_{side}.weight" for side in "AB")
        if missing := {down, up} - weights.keys():
            raise ValueError(f"{min(missing)} is missing; ask for the whole file")
        if weights[down].shape[0] != weights[up].shape[1]:
            raise ValueError(f"{down} and {up} are of different ranks; ask for the file again")
        if not weight.is_floating_point():
            raise ValueError(f"{name} is of whole numbers; give weights of 16 or 32 bits")


def _loaded(network: nn.Module) -> set[str]:
    """What of a file is in the network, by its names there, less ".weight"."""
    names = (f"transformer.{name}" for name in network.state_dict() if f".{TASK}." in name)
    return {name.replace(f".{TASK}.", ".").removesuffix("weight").removesuffix(".") for name in names}


def _fits(module: Any, factor: str, shape: Sequence[int]) -> bool:
    """Whether a module is there and of the factor's size; what is quantised tells by its features alone."""
    if not isinstance(module, (nn.Linear, nn.Conv2d)):
        return False
    if isinstance(module, nn.Linear):
        rows, columns = module.out_features, module.in_features
    else:
        rows, columns = module.weight.shape[:2]
    return shape[1] == columns if factor == "A.weight" else shape[0] == rows


def count_adapted(network: nn.Module, adapter: str) -> int:
    """How many of a network's modules have the adapter of that name."""
    return sum(adapter in getattr(module, "lora_A", ()) for module in network.modules())


@contextmanager
def _in_one_line(file: Path) -> Iterator[None]:
    try:
        with quiet():
            yield
    except Exception as error:  # a converter meets a stranger's file: anything may come
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{file}: {lines[0]}") from error
