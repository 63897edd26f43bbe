"""What a training step costs, counted and not timed: arithmetic in forwards of the network, bytes held for backward.

And the most memory that the process has had, and all that there is."""

import os
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """One step: how many forwards of its batch it is worth, and the most bytes autograd holds at once."""

    evaluations: float
    held_bytes: int


def arithmetic(run: Callable[[], Any]) -> int:
    """The floating-point operations of a call, counted operation by operation."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


class _Held:
    """Stands in a graph for a tensor that it keeps; its end is the tensor's."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def most_held(run: Callable[[], Any], weights: Iterable[Tensor]) -> int:
    """The most bytes that autograd keeps for backward at one moment of a call, the weights themselves left out.

    A storage that several operations keep counts once.
    """
    own = {part.untyped_storage().data_ptr() for weight in weights for part in parts(weight)}
    keepers: Counter[int] = Counter()
    now = most = 0

    def release(place: int, size: int) -> None:
        nonlocal now
        keepers[place] -= 1
        now -= size if keepers[place] == 0 else 0

    def pack(tensor: Tensor) -> _Held:
        nonlocal now, most
        held = _Held(tensor)
        for storage in (part.untyped_storage() for part in parts(tensor)):
            # Forward mode writes tangents of constants as zeros without memory.
            if not tensor._is_zerotensor() and storage.data_ptr() not in own:
                now += storage.nbytes() if keepers[storage.data_ptr()] == 0 else 0
                most = max(most, now)
                keepers[storage.data_ptr()] += 1
                finalize(held, release, storage.data_ptr(), storage.nbytes())
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        run()
    return most


def parts(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that one is made of: itself, or the integers and scales of one that torchao has quantised."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in parts(getattr(tensor, name))]


def bytes_of(tensor: Tensor) -> int:
    """The memory a tensor takes, quantised or not."""
    scales = getattr(getattr(tensor, "quant_state", None), "absmax", None)  # of bitsandbytes
    return sum(part.nbytes for part in parts(tensor)) + (0 if scales is None else scales.nbytes)


def numbers_in(tensor: Tensor) -> int:
    """How many weights a tensor stands for: bitsandbytes packs two in a byte."""
    state = getattr(tensor, "quant_state", None)
    return tensor.numel() if state is None else int(state.shape.numel())


def peak_memory_bytes() -> int:
    """The most memory this process has held: on the accelerator where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_there() -> int:
    """All the memory of the accelerator, or where there is none of the machine; bytes."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
