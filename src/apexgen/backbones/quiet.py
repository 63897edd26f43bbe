"""The libraries below kept from talking over us, and to their makers."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Of the extra `memory`: diffusers imports both wherever they are installed, and each tells of kernels it lacks.
TALKERS = (
    "bitsandbytes.backends.cpu.ops",
    "diffusers.quantizers.torchao.torchao_quantizer",
    "torch.utils._pytree",
    "torchao",
)
UNTOLD = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}  # read when huggingface_hub is imported


def silence_libraries() -> None:
    """For this process: what libraries say that no user can act on is left unsaid; errors are not.

    They send no usage figures either, where this comes before they are imported.
    """
    os.environ.update(UNTOLD)
    for name in TALKERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")  # torch, of a norm under autocast


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars and notices, which would drown a command's own lines."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
            library.enable_progress_bar()
