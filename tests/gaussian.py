"""The ground truth: for data N(m, s^2) on each axis every field is closed form.

With s_t^2 = (1 - t)^2 s^2 + t^2, x_t ~ N((1 - t) m, s_t^2), and
    v(x, t) = -m + (s_t' / s_t) (x - (1 - t) m),     s_t' / s_t = (t - (1 - t) s^2) / s_t^2,
    X_r(x)  = (1 - r) m + (s_r / s_t) (x - (1 - t) m),     u = (x - X_r) / (t - r).
"""

from dataclasses import dataclass

import torch

from apexgen.condition import Condition


def empty_condition(batch):
    """A condition that says nothing, for fields that do not read it."""
    return Condition(torch.zeros(batch, 1, 1), torch.ones(batch, 1, dtype=torch.bool))


@dataclass(frozen=True)
class Gaussian:
    """Data N(m, s^2); a velocity in the sense of the package (the condition is not read)."""

    m: float = 1.5
    s: float = 0.4

    def deviation(self, t):
        return ((1 - t) ** 2 * self.s**2 + t**2).sqrt()

    def velocity(self, x, t, r=None, c=None):
        slope = (t - (1 - t) * self.s**2) / self.deviation(t) ** 2
        return -self.m + slope * (x - (1 - t) * self.m)

    def score(self, x, t):
        return -(x - (1 - t) * self.m) / self.deviation(t) ** 2

    def flow_map(self, x, t, r):
        return (1 - r) * self.m + self.deviation(r) / self.deviation(t) * (x - (1 - t) * self.m)

    def mean_velocity(self, x, t, r, c=None):
        return (x - self.flow_map(x, t, r)) / (t - r)

    def sample(self, shape, dtype=torch.float64):
        return self.m + self.s * torch.randn(shape, dtype=dtype)


def affine_generator(mean, scale, **more):
    """G(w) = mean + scale w with the exact field of its own samples at t < 1."""

    def student(x, t, r, c):
        if (t == 1).all():
            return x - (mean + scale * x)
        own = (t - (1 - t) * scale**2) / ((1 - t) ** 2 * scale**2 + t**2)
        return (-mean + own * (x - (1 - t) * mean)).detach()

    return student
