"""Velocities: what every network is to the mathematics, and wrappers that are velocities again."""

from typing import Protocol

import torch
from torch import Tensor

from apexgen.condition import Condition


class Velocity(Protocol):
    """The mean velocity u(x, t, r, c) from time t down to r; r = t is the velocity at t.

    x is (B, ...); t and r are float32 times that broadcast against it, (B, 1, ...). A network
    without a second time ignores r. The result has x's shape and dtype: a network in half
    precision casts on its way in and out, so that small steps are added in full precision.
    """

    def __call__(self, x: Tensor, t: Tensor, r: Tensor, c: Condition, /) -> Tensor: ...


def guided(velocity: Velocity, null: Condition, scale: float) -> Velocity:
    """Classifier-free guidance: v = v_null + scale (v_c - v_null), in one call on both halves.

    null has batch 1 or B. At scale 1 the velocity itself comes back, at no further cost.
    Ho and Salimans, https://arxiv.org/abs/2207.12598, Eq. 6 (their w is scale - 1).
    """
    if scale == 1:
        return velocity

    def field(x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        assert len(x) == len(t) == len(r) == len(c), "guidance needs one time and text a sample"
        both = Condition.concatenate([c, null.expand(len(c))])
        v = velocity(torch.cat([x, x]), torch.cat([t, t]), torch.cat([r, r]), both)
        v_c, v_null = v.chunk(2)
        return v_null + scale * (v_c - v_null)

    return field
