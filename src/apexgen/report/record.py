"""What a run writes of itself beside its numbers, run.json: its environment, its cost, what it was warned of."""

import json
import platform
from collections import deque
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from apexgen.cost import peak_memory_bytes
from apexgen.files import write_whole

FILE = "run.json"
LIBRARIES = ("apexgen", "torch", "diffusers", "transformers", "peft")
BACKWARD = 2  # network evaluations that a backward counts


class Record:
    """Counts a network's evaluations step by step, and keeps run.json; without a folder, for other processes, none."""

    def __init__(
        self, folder: Path | None, network: nn.Module, samples: int, warnings: list[str], period: int = 1
    ) -> None:
        self.file, self.samples = folder and folder / FILE, samples
        self.count, self.counts = 0, False
        self.last: deque[int] = deque(maxlen=period)  # the counts of as many steps as have every term
        self.told: dict[str, Any] = {"environment": environment(), "warnings": warnings}
        self.hook = network.register_forward_pre_hook(self._called, with_kwargs=True)
        self.write()

    def _called(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not self.counts:
            return
        latents = inputs[0] if inputs else named["hidden_states"]  # (B, ...), or a list of B
        self.count += len(latents) * (1 + BACKWARD * torch.is_grad_enabled())

    def begin(self) -> None:
        """From here on the network is called by a step of training."""
        self.count, self.counts = 0, True

    def end(self) -> None:
        """The step is over, and what follows is none: previews, checkups."""
        if self.counts:
            self.last.append(self.count)
            self.told["evaluations_per_step"] = round(sum(self.last) / len(self.last) / self.samples, 2)
        self.counts = False

    def write(self) -> None:
        """Write run.json, with the memory held until now."""
        self.told["peak_memory_bytes"] = peak_memory_bytes()
        if self.file is not None:
            write_whole(self.file, (json.dumps(self.told, indent=1) + "\n").encode())

    def close(self) -> None:
        """Write for the last time, and leave the network as it was."""
        self.hook.remove()
        self.write()


def environment() -> dict[str, str]:
    """Python, the libraries, and what is computed on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES} | {"device": device}
