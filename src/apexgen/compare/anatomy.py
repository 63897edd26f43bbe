"""What APEX does inside, on points: is its fake field right, and does its push say what the anchor does not?"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from apexgen import flow
from apexgen.compare.plane import Plane
from apexgen.compare.points import NULL, PointNetwork, condition
from apexgen.objectives import Batch, Nets
from apexgen.objectives.apex import Apex
from apexgen.sample import one_step

LOOKED_AT = 1_000  # points of each label at which fields are compared
SAMPLES = 10_000  # of the generator, for each label
BATCH = 4_096  # for the gradients


@dataclass(frozen=True)
class Anatomy:
    """One moment of a training; v_own is the exact field of the generator's own samples."""

    fake_error: float  # |v_fake - v_own|^2 / |v_real - v_own|^2: at 0 the fake field is exact
    push_cosine: float  # of v_fake - v_real with v_own - v_real, the push that Eq. 13 asks for
    gradient_cosine: float  # of the terms kl and anchor
    gradient_ratio: float  # the size of kl's over anchor's


def velocity_of(samples: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The exact velocity at x_t (B, D), t (B, 1), of a cloud of samples (N, D) on the path (1 - t) x + t z.

    v = (x_t - E[x | x_t]) / t, the posterior over samples having weights exp(-|x_t - (1 - t) x|^2 / 2 t^2).
    """
    x = (1 - t) * (x_t @ samples.T) - (1 - t).square() / 2 * samples.square().sum(1)  # less what all samples share
    return (x_t - torch.softmax(x / t.square(), dim=1) @ samples) / t


def dissect(world: Plane, objective: Apex, student: PointNetwork, seed: int = 7) -> Anatomy:
    """Look at a student of the KL form after its warm-up."""
    fields = [_fields(world, objective, student, label, seed) for label in (0, 1)]
    v_own, v_fake, v_real = (torch.cat(kind) for kind in zip(*fields, strict=True))
    kl, anchor = _gradients(world, objective, student, seed)
    return Anatomy(
        fake_error=float((v_fake - v_own).square().mean() / (v_real - v_own).square().mean()),
        push_cosine=_cosine(v_fake - v_real, v_own - v_real),
        gradient_cosine=_cosine(kl, anchor),
        gradient_ratio=float(kl.norm() / anchor.norm()),
    )


@torch.no_grad()
def _fields(
    world: Plane, objective: Apex, student: PointNetwork, label: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """v_own, v_fake and v_real at noised samples of the generator, (LOOKED_AT, 2) each."""
    generator = Generator().manual_seed(seed)
    c = condition(torch.full((SAMPLES,), label))
    samples = one_step(student, flow.normal((SAMPLES, 2), generator), c)
    t = flow.uniform_times(LOOKED_AT, objective.time_low, objective.time_high, generator, ndim=2)
    # Other samples than those of the cloud: a point noised from the cloud would know where it came from.
    fresh = one_step(student, flow.normal((LOOKED_AT, 2), generator), c.select(slice(LOOKED_AT)))
    x_t, c = flow.interpolate(fresh, flow.normal((LOOKED_AT, 2), generator), t), c.select(slice(LOOKED_AT))
    c_fake = c.shift(objective.plain_shift)
    return velocity_of(samples, x_t, t), student(x_t, t, t, c_fake), world.teacher(x_t, t, t, c)


def _gradients(world: Plane, objective: Apex, student: PointNetwork, seed: int) -> tuple[Tensor, Tensor]:
    """The gradients of the terms kl and anchor on one large batch, flat."""
    generator = Generator().manual_seed(seed)
    labels, x = world.points.data(BATCH, generator)
    nets = Nets(student, world.teacher, student)
    found = {}
    for loss in objective.terms(nets, Batch(condition(labels), NULL, x), objective.draw(x.shape, generator), 10**9):
        pieces = torch.autograd.grad(loss.value, list(student.parameters()), allow_unused=True)
        found[loss.name] = torch.cat(
            [
                torch.zeros(w.numel()) if g is None else g.flatten()
                for w, g in zip(student.parameters(), pieces, strict=True)
            ]
        )
    return found["kl"], found["anchor"]


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
