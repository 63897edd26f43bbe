"""What libraries say at import that no user can act on."""

import logging

# Of the extra `memory`: diffusers imports both wherever they are installed, and each tells of kernels it lacks.
LOGGERS = (
    "bitsandbytes.backends.cpu.ops",
    "diffusers.quantizers.torchao.torchao_quantizer",
    "torch.utils._pytree",
    "torchao",
)


def silence_imports() -> None:
    """Leave these loggers their errors alone."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
