"""What is installed, what it computes on, and which families that is enough for."""

import platform
from importlib.metadata import version

import torch

from apexgen.backbones.diffusion import BACKBONES, check_diffusers, find_adapter
from apexgen.precision import fast_in_bfloat16

PACKAGES = ("apexgen", "torch", "diffusers", "transformers", "peft", "safetensors")


def describe_environment() -> list[str]:
    """Lines on Python, the packages, the devices and whether they compute in bfloat16, and the families."""
    lines = [f"python        {platform.python_version()}"]
    lines += [f"{name:<13} {version(name)}" for name in PACKAGES]
    lines += [f"device        {line}" for line in _devices()]
    return lines + [_family(pipeline) for pipeline in BACKBONES]


def _devices() -> list[str]:
    fast = "fast" if fast_in_bfloat16("cpu") else "slow"
    lines = [f"cpu, {torch.get_num_threads()} threads, bfloat16 {fast}"]
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        bfloat16 = "fast" if torch.cuda.is_bf16_supported() else "missing"
        lines.append(f"cuda:{index}, {torch.cuda.get_device_name(index)}, {memory:.0f} GiB, bfloat16 {bfloat16}")
    return lines


def _family(pipeline: str) -> str:
    adapter = find_adapter(pipeline)
    needed = ".".join(map(str, adapter.oldest_diffusers))
    try:
        check_diffusers(adapter)
    except ValueError:
        return f"family        {adapter.family}: no, it needs diffusers {needed}"
    return f"family        {adapter.family}: yes, with diffusers {needed} or newer"
