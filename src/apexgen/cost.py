"""What a training step costs, counted and not timed: arithmetic in forwards of the network, bytes held for backward."""

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
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    keepers: Counter[int] = Counter()
    now = most = 0

    def release(place: int, size: int) -> None:
        nonlocal now
        keepers[place] -= 1
        now -= size if keepers[place] == 0 else 0

    def pack(tensor: Tensor) -> _Held:
        nonlocal now, most
        held, storage = _Held(tensor), tensor.untyped_storage()
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
