"""How a base's weights are held while a LoRA of it trains: as published, in bfloat16, or quantised.

The LoRA, its average and the optimizer are float32 whatever the base is. The autoencoder stays in float32 too.
"""

import warnings
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

Weights = Literal["float32", "bfloat16", "8bit", "4bit"]
NEEDED = {"8bit": "torchao", "4bit": "bitsandbytes"}  # the package that quantises


def check_package(weights: Weights) -> None:
    """ValueError where what quantises the weights is not installed."""
    package = NEEDED.get(weights)
    if package is not None and find_spec(package) is None:
        raise ValueError(f'model.weights = "{weights}" needs {package}; write: pip install "apexgen[memory]"')


def opened_type(weights: Weights) -> torch.dtype:
    """The type in which a network that will be held so is opened, and its text encoders with it."""
    return torch.float32 if weights == "float32" else torch.bfloat16


def loading_options(weights: Weights) -> dict[str, Any]:
    """How diffusers opens a pipeline whose transformer will be held so."""
    return {"torch_dtype": {"default": opened_type(weights), "vae": torch.float32}}


def quantise(network: nn.Module, weights: Weights, device: str | torch.device) -> None:
    """Hold the linear modules of a bfloat16 network in fewer bits, made on the device one after another.

    8bit: torchao's integers, a scale a row. 4bit: bitsandbytes' NF4, of Dettmers et al., https://arxiv.org/abs/2305.14314.
    Nothing else is touched, on any device.
    """
    if weights == "8bit":
        _to_integers(network, device)
    elif weights == "4bit":
        _to_nf4(network, device)


def _to_integers(network: nn.Module, device: str | torch.device) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    warnings.filterwarnings("ignore", "TorchaoLoraLinear was instantiated")  # can't merge, which is asked of none
    quantize_(network, Int8WeightOnlyConfig(), device=device)


def _to_nf4(network: Any, device: str | torch.device) -> None:
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, module in list(network.named_modules()):
        if type(module) is not nn.Linear:
            continue
        held = Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            device="meta",
        )
        held.weight = Params4bit(module.weight.detach(), quant_type="nf4", compress_statistics=False, module=held)
        held.weight, held.bias = held.weight.to(device), module.bias
        # On some CPUs a forward without a graph would store the weights anew, and later ones lose their gradient.
        held.support_avx512bf16_for_cpu = False
        network.set_submodule(name, held.eval())
    network.is_loaded_in_4bit = True  # for peft
