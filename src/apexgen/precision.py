"""Where a model computes and in which precision: bfloat16 where the device multiplies in it, else float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_whole = ContextVar("whole", default=False)


@contextmanager
def in_float32() -> Iterator[None]:
    """Inside, every network computes in float32 whatever its precision: what a small step divides is no rounding then.

    A network whose weights are held in fewer bits raises ValueError, one line.
    """
    before = _whole.set(True)
    try:
        yield
    finally:
        _whole.reset(before)


def lowered(precision: torch.dtype | None, weights: str, device: str) -> torch.autocast:
    """The context in which a network of such weights computes: in its precision, or in float32 where that is asked.

    ValueError where weights in fewer bits can't.
    """
    if _whole.get() and weights != "float32":
        raise ValueError(f'model.weights = "{weights}" is too coarse for a difference; write model.weights = "float32"')
    return torch.autocast(device, dtype=precision, enabled=precision is not None and not _whole.get())


def best_device() -> str:
    """ "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fast_in_bfloat16(device: str) -> bool:
    """Whether bfloat16 is the faster type on a device, not one that it imitates: most laptops' CPUs and a T4 do."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_precision(wanted: str, device: str, weights: str = "float32") -> torch.dtype | None:
    """bfloat16 by default where the device multiplies in it, and for weights that are; None is float32."""
    fast = fast_in_bfloat16(device) or weights != "float32"
    return torch.bfloat16 if wanted == "bfloat16" or (wanted == "auto" and fast) else None


def imitated(precision: torch.dtype | None, weights: str, device: str) -> str | None:
    """A line of warning where a run computes in a bfloat16 that its device only imitates; None elsewhere."""
    if precision is None or device != "cpu" or fast_in_bfloat16(device):
        return None
    setting = "precision" if weights == "float32" else "weights"
    return f'this CPU imitates bfloat16, tens of times slower than float32: write model.{setting} = "float32"'
