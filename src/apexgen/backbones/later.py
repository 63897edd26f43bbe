"""A network whose weights stay on the disk, while texts are encoded or for good where another process has them.

So a card holds encoders or network, and of processes that share the weights one alone opens them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from apexgen.backbones.held import Weights, opened_type
from apexgen.backbones.quiet import quiet

if TYPE_CHECKING:
    from apexgen.backbones.base import Backbone


def empty_network(folder: Path, network: Any, weights: Weights) -> Any:
    """The network of a pipeline folder, of this class; its weights take no memory, its tables do."""
    from accelerate import init_empty_weights

    with quiet(), init_empty_weights():
        empty = network.from_config(network.load_config(folder / "transformer", local_files_only=True))
        return empty.to(opened_type(weights))


def leave_network(backbone: "Backbone", device: str | torch.device) -> None:
    """Do without the network's weights until `fetch_network`; all else moves to the device."""
    backbone.computes_on = torch.device(device)
    for part in backbone.pipeline.components.values():
        if isinstance(part, nn.Module) and part is not backbone.network:
            part.to(device)


def fetch_network(backbone: "Backbone") -> None:
    """Bring the weights that were left, before a LoRA or a student is made of the network."""
    if backbone.open_network is not None:
        network = backbone.open_network(backbone.device).eval().requires_grad_(False)
        backbone.network = backbone.pipeline.transformer = network
        backbone.open_network = backbone.computes_on = None
