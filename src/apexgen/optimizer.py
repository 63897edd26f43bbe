"""The optimizers a run may have: AdamW, and the same with its moments in eight bits."""

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
