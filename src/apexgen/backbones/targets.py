"""Which modules of a network a LoRA adapts: the family's own choice, a preset, or names.

attention: the projections of every attention, in every block. attention+mlp: all that the family adapts inside its
blocks. all-linear: every linear module there is, and what the family adapts.
"""

import difflib
from collections.abc import Iterator

from torch import nn

from apexgen.backbones.base import ATTENTION, TEXT_ATTENTION, Backbone


def lora_names(backbone: Backbone, targets: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names of modules, whole or their ends, for a preset, explicit names or, empty, the family's own.

    ValueError for a name that fits no module, or just such as get no gradient.
    """
    if not targets:
        return backbone.lora_targets
    modules = {
        name.removesuffix(".base_layer"): module  # where an adapter is stacked already
        for name, module in backbone.network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name and not name.startswith("second_time.")
    }
    if not isinstance(targets, str):
        _check_each_fits(targets, list(modules), backbone)
        return targets
    own = [name for name in modules if fits(name, backbone.lora_targets)]
    if targets == "all-linear":
        return tuple(name for name, module in modules.items() if isinstance(module, nn.Linear) or name in own)
    blocks = tuple(_blocks(backbone.network))
    inside = tuple(name for name in own if name.startswith(blocks))
    if targets == "attention+mlp":
        return inside
    assert targets == "attention", f"no such preset: {targets}"
    return tuple(name for name in inside if fits(name, (*ATTENTION, *TEXT_ATTENTION)))


def fits(name: str, ends: tuple[str, ...]) -> bool:
    """Whether a module of that name is among those whose names, or their ends, are given."""
    return f".{name}".endswith(tuple(f".{end}" for end in ends))


def _blocks(network: nn.Module) -> Iterator[str]:
    """How the names of what is in the network's lists of blocks begin."""
    return (f"{name}." for name, module in network.named_children() if isinstance(module, nn.ModuleList))


def _check_each_fits(targets: tuple[str, ...], modules: list[str], backbone: Backbone) -> None:
    family = backbone.family
    for target in targets:
        found = [name for name in modules if fits(name, (target,))]
        if found and all(fits(name, backbone.lora_excluded) for name in found):
            raise ValueError(f'model.targets: "{target}" gets no gradient: {family} reads nothing of it; leave it out')
        if found:
            continue
        parts = target.count(".") + 1
        ends = sorted({".".join(name.split(".")[-count:]) for name in modules for count in (parts, parts + 1)})
        near = difflib.get_close_matches(target, ends, n=1, cutoff=0) or modules
        raise ValueError(f'model.targets: "{target}" fits no linear module of {family}; write "{near[0]}"')
