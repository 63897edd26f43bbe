"""A second time for a network that has one: the same output at first, and no part of it copied.

What the network makes of its own time t is a vector, and to it is added (t - r) E(r), E a small trained network whose
last layer starts at zero. So at r = t the network is what it was, always, and at the start for every r.
"""

from typing import Any

import torch
from torch import Tensor, nn

FEATURES = 256  # sines and cosines of r


class SecondTime(nn.Module):
    """(t - r) E(r) for the times it was last told."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, width), nn.Linear(width, width)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.t: Tensor | None = None
        self.r: Tensor | None = None

    def tell(self, t: Tensor, r: Tensor) -> None:
        """The times (B, 1, ...) of the network's next call."""
        self.t, self.r = t.reshape(-1, 1), r.reshape(-1, 1)

    def forward(self) -> Tensor:
        """The vector to add, (B, width)."""
        assert self.t is not None and self.r is not None, "tell the times first"
        frequency = 1000 ** torch.linspace(0, 1, FEATURES // 2, device=self.r.device)
        waves = torch.cat([(self.r * frequency).sin(), (self.r * frequency).cos()], dim=1)
        return (self.t - self.r) * self.last(nn.functional.silu(self.first(waves)))


def give_second_time(backbone: Any, seed: int = 0) -> None:
    """Make a backbone's network read r, through the module that embeds its time; nothing where it does already.

    The second time's weights belong to the network, as `second_time`, frozen until a student trains them.
    """
    if backbone.second is not None:
        return
    embedder = backbone.network.get_submodule(backbone.time_embedder)
    *_, last = (module for module in embedder.modules() if isinstance(module, nn.Linear))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        second = SecondTime(last.out_features).to(backbone.device)
    backbone.network.second_time = backbone.second = second.requires_grad_(False)
    embedder.register_forward_hook(lambda module, inputs, embedded: embedded + second().to(embedded.dtype))
