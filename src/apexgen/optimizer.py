"""The optimizers a run may have, AdamW and the same with its moments in eight bits, and their learning rate."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from apexgen.config import Train


def open_optimizer(settings: Train, weights: Iterable[Tensor]) -> torch.optim.Optimizer:
    """AdamW without weight decay. ValueError, one line, where its package is missing.

    "adamw8bit" keeps the moments of tensors of 4096 numbers and more in blocks of eight bits: Dettmers et al.,
    https://arxiv.org/abs/2110.02861.
    """
    options: dict[str, Any] = {"lr": settings.learning_rate, "betas": settings.betas, "weight_decay": 0.0}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(weights, **options)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ValueError(
            'train.optimizer = "adamw8bit" needs bitsandbytes; write: pip install "apexgen[memory]"'
        ) from None
    return AdamW8bit(list(weights), **options)  # type: ignore[no-any-return]


def rate(step: int, steps: int, warmup: int, schedule: str = "linear") -> float:
    """The learning rate's factor: a linear rise over `warmup` steps, then a fall to zero at `steps`, or none."""
    left = (steps - step) / max(steps - warmup, 1)
    if schedule == "constant":
        left = 1.0
    elif schedule == "cosine":
        left = (1 - math.cos(math.pi * min(left, 1.0))) / 2
    return min((step + 1) / (warmup + 1), left)
