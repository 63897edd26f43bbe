"""The tensors of a network's LoRA, by module."""

from collections.abc import Iterable

from torch import Tensor

from apexgen.student import ADAPTER, Student


def lora_layers(student: Student, adapter: str = ADAPTER) -> dict[str, Tensor]:
    """The network's LoRA now, `<module>.lora_A.weight` (rank, in) and `<module>.lora_B.weight` (out, rank).

    adapter: the student's, or one that is stacked under it; its scale is in lora_B.
    """
    layers: dict[str, Tensor] = {}
    for name, module in student.backbone.network.named_modules():
        if adapter in getattr(module, "lora_A", ()):
            scale = module.scaling[adapter]
            up = module.lora_B[adapter].weight
            layers[f"{name}.lora_A.weight"] = module.lora_A[adapter].weight
            layers[f"{name}.lora_B.weight"] = up if scale == 1 else scale * up
    return layers


def lora_modules(layers: Iterable[str]) -> set[str]:
    """The modules that a LoRA's tensors adapt, by the tensors' names."""
    return {name.rpartition(".lora_")[0] for name in layers}
