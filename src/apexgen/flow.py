"""The straight path between data and noise, and the algebra of its velocity.

Said once, for the whole package: t = 0 is data and t = 1 is noise; x are clean latents, z and w
independent noises, c is the condition, r <= t a second time, v the velocity at t and u the mean
velocity from t down to r.

    x_t = (1 - t) x + t z,    v = dx_t/dt = z - x.

Times are float32 and broadcast against the latents: (B, 1, 1, 1) for pictures, (B, 1) for points.
They stay float32 beside half-precision latents, because bfloat16 rounds 0.999 to 1.

Equation numbers: Liu et al., Self-Adversarial One Step Generation via Condition Shifting,
https://arxiv.org/abs/2604.12322
"""

import torch
from torch import Generator, Tensor


def interpolate(x: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """The point of the path at time t: x_t = (1 - t) x + t z (Eq. 1)."""
    return (1 - t) * x + t * z


def velocity(x: Tensor, z: Tensor) -> Tensor:
    """The velocity of the path, the same at every time: v = z - x (Eq. 3)."""
    return z - x


def endpoint(x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The data end of the straight line through x_t: x = x_t - t v (Eq. 10)."""
    return x_t - t * v


def noise_end(x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The noise end of the straight line through x_t: z = x_t + (1 - t) v."""
    return x_t + (1 - t) * v


def step(x: Tensor, v: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """The point at time r on the straight line through x at time t: x - (t - r) v."""
    return x - (t - r) * v


def score(v: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The score of p_t from its mean velocity, t > 0: s = -(x_t + (1 - t) v) / t (Eq. 5, 33)."""
    return -noise_end(x_t, v, t) / t


def velocity_from_score(s: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The mean velocity from the score, t < 1: v = -(x_t + t s) / (1 - t) (Eq. 33, solved for v).

    Hence at one point v1 - v2 = -(t / (1 - t)) (s1 - s2) (Corollary 1, Eq. 38).
    """
    return -(x_t + t * s) / (1 - t)


def normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normal noise in float32, on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)


def uniform_times(n: int, low: float, high: float, generator: Generator, ndim: int = 4) -> Tensor:
    """n times from U(low, high), float32, shaped (n, 1, ...) with ndim axes."""
    u = torch.rand(_column(n, ndim), generator=generator, device=generator.device)
    return (low + (high - low) * u).float()


def logit_normal_times(n: int, mean: float, deviation: float, generator: Generator, ndim: int = 4) -> Tensor:
    """n times t = sigmoid(N(mean, deviation^2)), float32, shaped (n, 1, ...) with ndim axes.

    Esser et al., https://arxiv.org/abs/2403.03206, section 3.1.
    """
    return torch.sigmoid(mean + deviation * normal(_column(n, ndim), generator))


def _column(n: int, ndim: int) -> tuple[int, ...]:
    return (n, *[1] * (ndim - 1))
