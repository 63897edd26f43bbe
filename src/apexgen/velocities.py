"""Velocities: what every network is to the mathematics, and wrappers that are velocities again."""

import warnings
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from apexgen.condition import Condition
from apexgen.precision import in_float32

FALLBACK = 1e-4  # half width of a difference, in float32: networks read times of thousandths


class Velocity(Protocol):
    """The mean velocity u(x, t, r, c) from time t down to r; r = t is the velocity at t.

    x is (B, ...); t and r are float32 times that broadcast against it, (B, 1, ...). A network
    without a second time ignores r. The result has x's shape and dtype: a network in half
    precision casts on its way in and out, so that small steps are added in full precision.
    """

    def __call__(self, x: Tensor, t: Tensor, r: Tensor, c: Condition, /) -> Tensor: ...


def guided(velocity: Velocity, null: Condition, scale: float, until: float = 1.0) -> Velocity:
    """Classifier-free guidance: v = v_null + s (v_c - v_null), s = scale where t <= until and 1 nearer the noise.

    null has batch 1 or B; one call on both halves. At scale 1 the velocity itself comes back, at no further cost;
    nor do times cost more that are all beyond the bound.
    Ho and Salimans, https://arxiv.org/abs/2207.12598, Eq. 6 (their w is s - 1); the bound on t: Kynkäänniemi et al.,
    https://arxiv.org/abs/2404.07724.
    """
    if scale == 1:
        return velocity

    def field(x: Tensor, t: Tensor, r: Tensor, c: Condition) -> Tensor:
        assert len(x) == len(t) == len(r) == len(c), "guidance needs one time and text a sample"
        if until < 1 and not (t <= until).any():
            return velocity(x, t, r, c)
        both = Condition.concatenate([c, null.expand(len(c))])
        v = velocity(torch.cat([x, x]), torch.cat([t, t]), torch.cat([r, r]), both)
        v_c, v_null = v.chunk(2)
        strength = scale if until >= 1 else torch.where(t <= until, scale, 1.0).to(v)
        return v_null + strength * (v_c - v_null)

    return field


def along_flow(
    velocity: Velocity, x: Tensor, t: Tensor, r: Tensor, c: Condition, v: Tensor, difference: float
) -> tuple[Tensor, Tensor]:
    """u = velocity(x, t, r, c), and its derivative along the flow at fixed r, du/dt = (v . d_x + d_t) u.

    difference 0: forward mode, exact, in one pass, through plain attention, which holds its weights. Otherwise a finite
    difference over 2 h, h = difference, which any network allows: (u(x + h v, t + h) - u(x - h v, t - h)) / 2h, cut to
    one side where it would pass time 1 or r, and computed in float32 whatever the network's precision. ValueError from
    a network whose weights have fewer bits.
    x and v are (B, ...), t and r (B, 1, ...).
    u carries its graph; the derivative carries none. Where t = r = 1 the difference is 0. A network whose kernels
    have no forward mode gets a difference of 1e-4 in its place, and a warning.
    Geng et al., Mean Flows, https://arxiv.org/abs/2505.13447, Eq. 8.
    """
    if difference == 0:
        tangents = v.to(x.dtype), torch.ones_like(t)
        try:
            with sdpa_kernel(SDPBackend.MATH):  # no fused attention has a forward mode
                u, slope = torch.func.jvp(lambda x, t: velocity(x, t, r, c), (x, t), tangents)[:2]
            return u, slope.detach()
        except NotImplementedError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"write difference = {FALLBACK} for this network: {reason}", stacklevel=2)
            difference = FALLBACK
    low, high = torch.maximum(t - difference, r), (t + difference).clamp(max=1)
    with torch.no_grad(), in_float32():
        rise = velocity(x + (high - t) * v, high, r, c) - velocity(x + (low - t) * v, low, r, c)
        slope = rise / (high - low).clamp(min=torch.finfo(t.dtype).tiny)
    return velocity(x, t, r, c), slope
