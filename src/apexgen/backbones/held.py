"""How a base's weights are held while a LoRA of it trains: as published, in bfloat16, or quantised.

The LoRA, its average and the optimizer are float32 whatever the base is. The autoencoder stays in float32 too.
"""

from typing import Any, Literal

import torch

Weights = Literal["float32", "bfloat16", "8bit", "4bit"]
QUANTISED = ("8bit", "4bit")


def loading_options(weights: Weights) -> dict[str, Any]:
    """How diffusers opens a pipeline so that its transformer is held as asked; its text encoders are in bfloat16 then.

    8bit: torchao's integers, on any device. 4bit: bitsandbytes' NF4, of Dettmers et al., https://arxiv.org/abs/2305.14314.
    ValueError where the package, or the GPU that 4bit needs, is missing.
    """
    if weights == "float32":
        return {}
    options: dict[str, Any] = {"torch_dtype": {"default": torch.bfloat16, "vae": torch.float32}}
    if weights == "bfloat16":
        return options
    from diffusers import PipelineQuantizationConfig

    quantisation = _integers() if weights == "8bit" else _nf4()
    return options | {"quantization_config": PipelineQuantizationConfig(quant_mapping={"transformer": quantisation})}


def _integers() -> Any:
    from diffusers import TorchAoConfig

    try:
        from torchao.quantization import Int8WeightOnlyConfig
    except ImportError:
        raise ValueError('model.weights = "8bit" needs torchao; write: pip install "apexgen[memory]"') from None
    try:
        return TorchAoConfig(Int8WeightOnlyConfig())
    except (AttributeError, TypeError):  # older ones know it by a name that newer torchao has dropped
        raise ValueError('model.weights = "8bit" needs a newer diffusers; write: pip install -U diffusers') from None


def _nf4() -> Any:
    from diffusers import BitsAndBytesConfig
    from diffusers.utils import is_bitsandbytes_available

    if not torch.cuda.is_available():
        raise ValueError('model.weights = "4bit" needs a GPU; write model.weights = "8bit"')
    if not is_bitsandbytes_available():
        raise ValueError('model.weights = "4bit" needs bitsandbytes; write: pip install "apexgen[memory]"')
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
