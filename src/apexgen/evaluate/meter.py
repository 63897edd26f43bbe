"""Where the time of a picture goes: hooks on a pipeline's parts, the seconds between them, and what passed through."""

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PARTS = ("text", "transformer", "vae")
NETWORKS = ("transformer", "transformer_2", "unet")


class Clock:
    """Moments on a device's own clock: what is asked of an accelerator is done later, so that its events are read."""

    def __init__(self, device: torch.device) -> None:
        self.on_cuda = device.type == "cuda"

    def now(self) -> Any:
        """A moment; on an accelerator, when it will have done all that it was asked so far."""
        if not self.on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """The time between two moments; waits for the later one."""
        if not self.on_cuda:
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end) / 1000)


class Meter:
    """What the parts of a pipeline took, and how many rows its network was given, since `clear`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.spans: dict[str, list[tuple[Any, Any]]] = {part: [] for part in PARTS}
        self.rows = 0

    def seconds(self) -> dict[str, float]:
        """The time that each part took."""
        return {part: sum(self.clock.seconds(*span) for span in spans) for part, spans in self.spans.items()}

    @contextmanager
    def watching(self, pipeline: Any) -> Iterator[None]:
        """Inside, every call of the pipeline's text encoders, network and decoder is noted."""
        handles = []
        for name, module in pipeline.components.items():
            if isinstance(module, nn.Module) and name.startswith("text_encoder"):
                handles += self._watch(module, "text", counted=False)
            elif isinstance(module, nn.Module) and name in NETWORKS:
                handles += self._watch(module, "transformer", counted=True)
        decoder = getattr(pipeline, "vae", None)  # some draw pixels, and have none
        if decoder is not None:
            decoder.decode = self._timed(decoder.decode)  # a method, which no hook sees
        try:
            yield
        finally:
            if decoder is not None:
                del decoder.decode
            for handle in handles:
                handle.remove()

    def _watch(self, module: nn.Module, part: str, counted: bool) -> list[Any]:
        begun: list[Any] = []

        def before(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            begun.append(self.clock.now())
            self.rows += rows_of(*inputs, *options.values()) if counted else 0

        def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self.spans[part].append((begun.pop(), self.clock.now()))

        return [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]

    def _timed(self, decode: Any) -> Any:
        def run(*inputs: Any, **options: Any) -> Any:
            start = self.clock.now()
            decoded = decode(*inputs, **options)
            self.spans["vae"].append((start, self.clock.now()))
            return decoded

        return run


def network_of(pipeline: Any) -> nn.Module:
    """The network whose rows are counted; ValueError, one line, for a pipeline without one, or that takes no prompt."""
    kind = type(pipeline)
    found = [pipeline.components[name] for name in NETWORKS if isinstance(pipeline.components.get(name), nn.Module)]
    if not found or "prompt" not in inspect.signature(kind.__call__).parameters:
        raise ValueError(
            f"{kind.__name__} has no {', '.join(NETWORKS)} or takes no prompt; name a text-to-image pipeline"
        )
    return found[0]


def rows_of(*inputs: Any) -> int:
    """The batch of a network's call: the length of the first tensor, or list of tensors, that it is given."""
    for value in inputs:
        if isinstance(value, Tensor) and value.ndim > 0:
            return len(value)
        if isinstance(value, list) and value and isinstance(value[0], Tensor):
            return len(value)
    raise AssertionError("a network was called without a tensor")


def forget_peak(device: torch.device) -> bool:
    """Begin to look for the most memory held anew; False where this machine can't, off Linux and off accelerators."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak resident size becomes the present one
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int:
    """The most memory held since `forget_peak`: on the accelerator, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
