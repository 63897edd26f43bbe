"""Samplers: functions that carry noise to data along a velocity.

Each step asks for the mean velocity from its time t down to the next one, r. A network without a
second time ignores r, and `euler` is then Euler's method on dx/dt = v. Times are 1-D, float32 and
decreasing from 1 to 0.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from apexgen import flow
from apexgen.condition import Condition
from apexgen.velocities import Velocity


def uniform_grid(steps: int) -> Tensor:
    """The steps + 1 evenly spaced times from 1 to 0; ValueError where steps < 1."""
    if steps < 1:
        raise ValueError(f"--steps must be at least 1, got {steps}; write --steps 1")
    return torch.linspace(1, 0, steps + 1, dtype=torch.float32)


def one_step(velocity: Velocity, z: Tensor, c: Condition) -> Tensor:
    """One evaluation from noise z (B, ...) to data: x = z - u(z, 1, 0, c) (Eq. 10 at t = 1)."""
    return euler(velocity, z, c, uniform_grid(1))


def euler(velocity: Velocity, z: Tensor, c: Condition, times: Tensor) -> Tensor:
    """One straight line a step: x_r = x_t - (t - r) u(x_t, t, r, c), from noise z (B, ...) along times (steps + 1,)."""
    x = z
    for t, r in pairwise(_columns(times, z)):
        x = flow.step(x, velocity(x, t, r, c), t, r)
    return x


def renoise(velocity: Velocity, z: Tensor, c: Condition, times: Tensor, noises: Sequence[Tensor]) -> Tensor:
    """Jump to the data end, noise it to the next time with fresh noise, jump again.

    x = x_t - t u(x_t, t, 0, c) and x_r = (1 - r) x + r w, with one noise w, shaped like z, for
    every time strictly between 1 and 0.
    Song et al., Consistency Models, https://arxiv.org/abs/2303.01469, Algorithm 1.
    """
    first, *inner, zero = _columns(times, z)
    assert len(noises) == len(inner), f"{len(noises)} noises for {len(inner)} inner times"
    x = flow.step(z, velocity(z, first, zero, c), first, zero)
    for t, w in zip(inner, noises, strict=True):
        x_t = flow.interpolate(x, w, t)
        x = flow.step(x_t, velocity(x_t, t, zero, c), t, zero)
    return x


@torch.no_grad()
def generate(
    velocity: Velocity, c: Condition, noise: Tensor, steps: int, fresh: Sequence[Tensor] | None = None
) -> Tensor:
    """Latents from noise of the same shape, on the uniform grid: by Euler, or by `renoise` with steps - 1 fresh noises.

    ValueError: steps < 1.
    """
    grid = uniform_grid(steps)
    return euler(velocity, noise, c, grid) if fresh is None else renoise(velocity, noise, c, grid, fresh)


def _columns(times: Tensor, z: Tensor) -> list[Tensor]:
    """Each time as a column (B, 1, ...) that broadcasts against z."""
    assert times.ndim == 1 and len(times) >= 2, f"times must be 1-D, got {tuple(times.shape)}"
    return [t.expand(len(z), *[1] * (z.ndim - 1)) for t in times.to(z.device)]
