"""APEX on the generated path: Eq. 12 and 13 of https://arxiv.org/abs/2604.12322.

By Eq. 38 the gradient of KL(fake | real) through the generator G(w) = w - F(w, 1, c) is, in
velocities and with weight one over t,

    d KL / d F(w, 1, c)  ~  v_fake(x_t, t, c_fake) - v_real(x_t, t, c),
    x_t = (1 - t) x_fake + t z,    x_fake = sg G(w),    w and z independent.

v_fake - v_real = E_real[x | x_t] - E_fake[x | x_t], so descent moves G(w) toward the real mean.
"""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from apexgen.condition import Condition
from apexgen.flow import endpoint, interpolate, velocity
from apexgen.objectives.base import Draw, Loss, clamped, mean_square
from apexgen.velocities import Velocity


def kl_terms(
    student: Velocity,
    real: Velocity,
    c: Condition,
    c_fake: Condition,
    x: Tensor | None,
    draw: Draw,
    *,
    fake_weight: float,
    anchor_weight: float,
    anchor_share: float,
    kl_weight: float,
    clamp: float,
    redraw: bool,
) -> Iterator[Loss]:
    """The terms fake, anchor and kl; the anchor is on the pictures x, or on `real` without.

    kl_weight is 0 during the warm-up; the other settings are fields of Apex.
    """
    (w, z), (t,) = draw.noises, draw.times
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    generates = kl_weight > 0

    with nullcontext() if generates and not redraw else torch.no_grad():
        F_w = student(w, one, zero, c)
    x_fake = endpoint(w, F_w.detach(), one)  # Eq. 11 at t = 1
    x_t = interpolate(x_fake, z, t)  # Eq. 1, on the generated path

    v_fake = student(x_t, t, t, c_fake)
    if fake_weight > 0:
        yield Loss("fake", fake_weight * mean_square(v_fake, velocity(x_fake, z)))  # Eq. 12
    v_fake = v_fake.detach()  # only its value serves below
    with torch.no_grad():
        v_real = real(x_t, t, t, c)
    gap = v_fake - v_real  # Eq. 13 in velocities, by Eq. 38
    logs = {"gap": gap.abs().mean()}

    held = slice(max(1, round(anchor_share * len(w))))  # the first rows of the batch
    if x is None:
        x_held, target = x_t, v_real
    else:
        x_held, target = interpolate(x, z, t), velocity(x, z)  # Eq. 4
    v_held = student(x_held[held], t[held], t[held], c.select(held))
    yield Loss("anchor", anchor_weight * mean_square(v_held, target[held]), logs)

    if generates:
        if redraw:
            F_w = student(w, one, zero, c)
        push = clamped(gap, clamp)
        yield Loss("kl", kl_weight * mean_square(F_w, F_w.detach() - push))
