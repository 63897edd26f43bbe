"""APEX on the data path: Eq. 25 of https://arxiv.org/abs/2604.12322 as printed.

    L = lambda_p L_fake + lambda_e L_mix,    lambda in [0, 1] the share of the fake field in L_mix.

omega(t) = t^2 in Eq. 24: then L_mix = E |F - ((1 - lambda) v + lambda v_fake)|^2, which at
lambda = 0 is flow matching (Eq. 4). The (1 - t) / t of the paper's text would weight the same
error by t^3 / (1 - t), without bound at t = 1.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from apexgen.condition import Condition
from apexgen.flow import endpoint, interpolate, velocity
from apexgen.objectives.base import Draw, Loss, mean_square
from apexgen.velocities import Velocity


def mix_terms(
    student: Velocity,
    c: Condition,
    c_fake: Condition,
    x: Tensor,
    draw: Draw,
    *,
    mix: float,
    mix_weight: float,
    fake_weight: float,
    fake_gradient: bool,
) -> Iterator[Loss]:
    """The terms mix and fake of pictures x (B, ...); the second reuses the first's F unless its gradient is wanted."""
    (w, z), (t, t_fake) = draw.noises, draw.times

    x_t = interpolate(x, z, t)  # Eq. 1
    F = student(x_t, t, t, c)
    with torch.no_grad():
        v_fake = student(x_t, t, t, c_fake)  # under sg, as in Eq. 17
    target = (1 - mix) * x + mix * endpoint(x_t, v_fake, t)  # Eq. 23
    error = (endpoint(x_t, F, t) - target) / t
    logs = {"gap": (v_fake - F.detach()).abs().mean()}
    yield Loss("mix", mix_weight * error.square().mean(), logs)  # Eq. 24

    F = student(x_t, t, t, c) if fake_gradient else F.detach()
    x_fake = endpoint(x_t, F, t)  # Eq. 11
    v = student(interpolate(x_fake, w, t_fake), t_fake, t_fake, c_fake)
    yield Loss("fake", fake_weight * mean_square(v, velocity(x_fake, w)))  # Eq. 12
