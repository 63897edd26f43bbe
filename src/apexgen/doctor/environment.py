"""What is installed, what it computes on, and which families that is enough for."""

import platform
from importlib.metadata import version
from typing import Any

import torch

from apexgen.backbones.diffusion import BACKBONES, check_diffusers, find_adapter
from apexgen.precision import fast_in_bfloat16

PACKAGES = ("apexgen", "torch", "diffusers", "transformers", "peft", "safetensors")


def describe_environment() -> dict[str, Any]:
    """Python's version and the packages', the devices and whether they compute in bfloat16, and the families.

    {"python": version, "packages": {name: version}, "devices": [{"name", "threads" or "model" and "memory_gib",
    "bfloat16": fast, slow or missing}], "families": {name: {"well", "diffusers": the oldest that it works in}}}.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "devices": _devices(),
        "families": dict(_family(pipeline) for pipeline in BACKBONES),
    }


def environment_lines(told: dict[str, Any]) -> list[str]:
    """What `describe_environment` tells, for people."""
    lines = [f"{name:<13} {number}" for name, number in ({"python": told["python"]} | told["packages"]).items()]
    for one in told["devices"]:
        what = f"{one['threads']} threads" if "threads" in one else f"{one['model']}, {one['memory_gib']:.0f} GiB"
        lines.append(f"device        {one['name']}, {what}, bfloat16 {one['bfloat16']}")
    for name, one in told["families"].items():
        needed = one["diffusers"]
        said = f"yes, with diffusers {needed} or newer" if one["well"] else f"no, it needs diffusers {needed}"
        lines.append(f"family        {name}: {said}")
    return lines


def _devices() -> list[dict[str, Any]]:
    fast = "fast" if fast_in_bfloat16("cpu") else "slow"
    devices: list[dict[str, Any]] = [{"name": "cpu", "threads": torch.get_num_threads(), "bfloat16": fast}]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "name": f"cuda:{index}",
                "model": properties.name,
                "memory_gib": round(properties.total_memory / 2**30, 2),
                "bfloat16": "fast" if torch.cuda.is_bf16_supported() else "missing",
            }
        )
    return devices


def _family(pipeline: str) -> tuple[str, dict[str, Any]]:
    adapter = find_adapter(pipeline)
    try:
        check_diffusers(adapter)
        well = True
    except ValueError:
        well = False
    return adapter.family, {"well": well, "diffusers": ".".join(map(str, adapter.oldest_diffusers))}
