"""The stock scheduler that takes our steps, and the noise that it draws between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from apexgen.backbones.base import Backbone


def stock_scheduler(backbone: Backbone, renoises: bool) -> Any:
    """The one of a student of this backbone; a renoising student's draws fresh noise between its steps."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchLCMScheduler

    kind = FlowMatchLCMScheduler if renoises else FlowMatchEulerDiscreteScheduler
    return kind(**backbone.scheduler_config)


@contextmanager
def seeded() -> Iterator[None]:
    """Inside, what is drawn from torch's own generators, as that noise is, is the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def fresh_noise(backbone: Backbone, noise: Tensor, steps: int) -> Tensor:
    """What the scheduler draws, `seeded`, between steps that begin at noise (B, C, h, w): (steps - 1, B, C, h, w)."""
    packed, fresh = backbone.pack(noise), noise.new_empty(steps - 1, *noise.shape, device=backbone.device)
    with seeded():
        for one in fresh:
            one.copy_(backbone.unpack(torch.randn(packed.shape, device=backbone.device)))
    return fresh
