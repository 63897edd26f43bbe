"""What objectives that learn jumps along the flow share: whose flow it is, and where on it they stand."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from apexgen.condition import Condition
from apexgen.flow import interpolate, logit_normal_times, normal, step, velocity
from apexgen.objectives.base import Batch, Draw, Nets, Objective, pictures
from apexgen.objectives.check import one_of, unused, within
from apexgen.velocities import Velocity, guided


@dataclass(frozen=True)
class LogitNormal(Objective):
    """An objective on pictures and one noise, at times t = sigmoid(N(logit_mean, logit_deviation^2))."""

    logit_mean: float = 0.0
    logit_deviation: float = 1.0

    def __post_init__(self) -> None:
        within(self, "logit_deviation", 1e-6)

    @property
    def needs_pictures(self) -> bool:
        return True

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        t = logit_normal_times(shape[0], self.logit_mean, self.logit_deviation, generator, ndim=len(shape))
        return Draw(noises=(normal(shape, generator),), times=(t, *self.second_times(t, generator)))

    def second_times(self, t: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        """The further times of a step, each below t (B, 1, ...) and like it; none unless an objective says so."""
        return ()


@dataclass(frozen=True)
class PathObjective(Objective):
    """An objective on x_t = (1 - t) x + t z, carried on by a real velocity."""

    # Whose velocity carries x_t: the frozen teacher's, guided, or z - x of the picture at hand, right on average.
    real: Literal["teacher", "data"] = "teacher"
    guidance: float = 1.0  # classifier-free guidance of the teacher

    def __post_init__(self) -> None:
        one_of(self, "real", ("teacher", "data"))
        if self.real == "data":
            unused(self, ("guidance",), 'real = "data"')
        within(self, "guidance", 1)

    @property
    def needs_pictures(self) -> bool:
        return True

    def start(self, batch: Batch, z: Tensor, t: Tensor) -> Tensor:
        """The point x_t between the batch's pictures and the noise z (B, ...), at times t (B, 1, ...)."""
        return interpolate(pictures(batch), z, t)

    @torch.no_grad()
    def real_velocity(self, nets: Nets, batch: Batch, z: Tensor, x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """The velocity that carries x_t (B, ...) from t to r (B, 1, ...); with r = t, the flow's at t.

        A stock teacher knows one time only: a step of its velocity is Euler's.
        """
        if self.real == "data":
            return velocity(pictures(batch), z)
        return guided(nets.teacher, batch.null, self.guidance)(x_t, t, r, batch.c)


@dataclass(frozen=True)
class LogitNormalPath(LogitNormal, PathObjective):
    """One on the path at times of a logit-normal."""

    def __post_init__(self) -> None:
        LogitNormal.__post_init__(self)
        PathObjective.__post_init__(self)


def solve(velocity: Velocity, x: Tensor, t: Tensor, r: Tensor, c: Condition, steps: int) -> Tensor:
    """x (B, ...) carried from times t down to r (B, 1, ...), in `steps` equal steps along the velocity."""
    now = t
    for k in range(1, steps + 1):
        later = t + (r - t) * (k / steps)
        x, now = step(x, velocity(x, now, later, c), now, later), later
    return x


def on_grid(t: Tensor, steps: int) -> Tensor:
    """t (B, 1, ...) in (0, 1] raised to the nearest of the times 1 / steps, 2 / steps, ... 1."""
    return (t * steps).ceil() / steps


def uniform_below(t: Tensor, generator: Generator) -> Tensor:
    """r ~ U(0, t), for each t (B, 1, ...)."""
    return t * torch.rand(t.shape, generator=generator, device=generator.device)


def chosen(t: Tensor, share: float, generator: Generator) -> Tensor:
    """A boolean for each t (B, 1, ...), true with probability `share`: any batch size does."""
    return torch.rand(t.shape, generator=generator, device=generator.device) < share
