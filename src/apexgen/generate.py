"""From prompts and seeds to pictures: encode, sample, decode."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.condition import Condition
from apexgen.sample import generate
from apexgen.velocities import Velocity


def draw_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """One noise for each seed, (len(seeds), C, h, w): a picture's noise does not depend on the batch it is made in."""
    return draw_noises(seeds, shape, 1)[0]


CHUNK = 64  # pictures drawn at once


def draw_noises(seeds: Sequence[int], shape: tuple[int, int, int], count: int) -> Tensor:
    """`count` noises for each seed, (count, len(seeds), C, h, w); the first are those of `draw_noise`."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    rounds = [torch.cat([torch.randn(1, *shape, generator=g) for g in generators]) for _ in range(count)]
    return torch.stack(rounds)


def make_pictures(
    backbone: Backbone,
    velocity: Velocity,
    c: Condition,
    noise: Tensor,
    steps: int,
    fresh: Tensor | None = None,
    chunk: int = CHUNK,
) -> np.ndarray:
    """Pictures (B, H, W, 3) float32 in [0, 1] of conditions (B rows) from noises (B, C, h, w), `chunk` at once.

    fresh: (steps - 1, B, C, h, w), for a velocity that is sampled by `renoise`.
    """
    pictures = []
    for start in range(0, len(noise), chunk):
        rows = slice(start, start + chunk)
        again = None if fresh is None else list(fresh[:, rows].to(backbone.device))
        latents = generate(velocity, c.select(rows).to(backbone.device), noise[rows].to(backbone.device), steps, again)
        pictures.append(to_pictures(backbone.decode(latents)))
    return np.concatenate(pictures)


def to_tensor(pictures: np.ndarray) -> Tensor:
    """Pictures (B, H, W, 3) in [0, 1] to (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1


def to_pictures(decoded: Tensor) -> np.ndarray:
    """Decoded pictures (B, 3, H, W) in [-1, 1] to (B, H, W, 3) float32 in [0, 1]."""
    return (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
