"""Is the fake field of a finished run of the KL form that of its generator, and does the push point where Eq. 13 says?

    python benchmarks/fake_field.py apexgen-demo [--steps 2000] [--checkpoint latest]

The generator rests, and a second network, which begins as the student's average, learns the flow of its samples alone
for as many steps as one likes: v_own. The loss of each field on fresh samples tells which is nearest to the true one,
v_own's included: it is the square distance from it and what no field can know.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from apexgen import flow
from apexgen.backbones.base import fast_attention
from apexgen.backbones.quiet import silence_libraries
from apexgen.condition import Condition
from apexgen.distill import open_trained, read_run
from apexgen.encode import encode
from apexgen.objectives import Batch
from apexgen.objectives.apex import Apex
from apexgen.objectives.base import Nets, mean_square
from apexgen.sample import one_step
from apexgen.student import Student
from apexgen.train import open_objective
from apexgen.velocities import Velocity, guided

BATCH, LEARNING_RATE, DECAY = 16, 5e-4, 0.995
LOOKED_AT, QUARTERS = 1_024, 4
FRESH = 10**6  # steps of the order of records that no training reaches


@dataclass(frozen=True)
class Sample:
    """Noised samples of the generator, with what their velocity should be."""

    batch: Batch
    c_fake: Condition
    x_t: Tensor
    t: Tensor
    v: Tensor


class Generated:
    """Samples of a student at rest, step by step."""

    def __init__(self, folder: Path, which: str) -> None:
        self.run, self.saved = read_run(folder, which)
        objective = open_objective(self.run)
        if not isinstance(objective, Apex) or objective.form != "kl":
            raise SystemExit(f"{folder}: its objective is not the KL form of apex")
        self.objective, self.student = objective, self.open()
        self.corpus = encode(self.run.data, self.student.backbone, objective.needs_pictures)

    def open(self) -> Student:
        """The run's student, its average in the place of its weights."""
        student = open_trained(self.run, self.saved)
        student.load({**student.trained, **student.average}, student.average, {})
        return student

    @torch.no_grad()
    def at(self, step: int, t: Tensor | None = None) -> Sample:
        """The sample of a step; at times t (BATCH, 1, 1, 1), or the objective's own."""
        generator = Generator().manual_seed(step)
        batch = self.corpus.batch(step, BATCH, self.run.train.seed)
        shape = (BATCH, *self.student.backbone.latent_shape())
        draw = self.objective.draw(shape, generator)
        (w, z), (own,) = draw.noises, draw.times
        t = own if t is None else t
        x = one_step(self.student.backbone, w, batch.c)
        shift = self.student.nets().shift or self.objective.plain_shift
        return Sample(batch, batch.c.shift(shift), flow.interpolate(x, z, t), t, flow.velocity(x, z))


def learn(generated: Generated, steps: int) -> Velocity:
    """v_own: told c_fake, as the fake field it begins with; the average of its weights."""
    second = generated.open()
    weights = list(second.weights.values())
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
        sample = generated.at(FRESH + step)
        with fast_attention(sample.x_t.device):
            mean_square(second.backbone(sample.x_t, sample.t, sample.t, sample.c_fake), sample.v).backward()
        optimizer.step()
        optimizer.zero_grad()
        second.update_average(DECAY, step)
    return second.ema


@torch.no_grad()
def compare(generated: Generated, own: Velocity, quarter: int) -> tuple[float, ...]:
    """In a quarter of the times: the losses of v_own, v_fake, v_real; the fake field's error; the push's cosine."""
    nets, objective = generated.student.nets(), generated.objective
    fields: list[list[Tensor]] = [[], [], []]
    truth = []
    for step in range(LOOKED_AT // BATCH):
        t = (quarter + torch.rand(BATCH, 1, 1, 1, generator=Generator().manual_seed(step))) / QUARTERS
        sample = generated.at(2 * FRESH + step, t.clamp(objective.time_low, objective.time_high))
        real = guided(nets.teacher, sample.batch.null, objective.guidance, objective.guidance_until)
        for kept, field, c in zip(
            fields, (own, nets.student, real), (sample.c_fake, sample.c_fake, sample.batch.c), strict=True
        ):
            kept.append(field(sample.x_t, sample.t, sample.t, c))
        truth.append(sample.v)
    v_own, v_fake, v_real = (torch.cat(kept).flatten() for kept in fields)
    losses = [float((v - torch.cat(truth).flatten()).square().mean()) for v in (v_own, v_fake, v_real)]
    error = float((v_fake - v_own).square().mean() / (v_real - v_own).square().mean())
    return *losses, error, float(torch.cosine_similarity(v_fake - v_real, v_own - v_real, dim=0))


def gradients(generated: Generated, batches: int = 16) -> tuple[float, float]:
    """The cosine of the gradients of the terms kl and anchor, and the size of the first over the second's."""
    student, found = generated.student, {}
    nets = student.nets()
    nets = Nets(nets.student, nets.teacher, nets.ema, shift=nets.shift)
    for step in range(batches):
        batch = generated.corpus.batch(2 * FRESH + step, BATCH, generated.run.train.seed)
        draw = generated.objective.draw((BATCH, *student.backbone.latent_shape()), Generator().manual_seed(step))
        for loss in generated.objective.terms(nets, batch, draw, generated.objective.warmup):
            pieces = torch.autograd.grad(loss.value, list(student.weights.values()), materialize_grads=True)
            flat = torch.cat([piece.flatten() for piece in pieces])
            found[loss.name] = found.get(loss.name, 0) + flat / batches
    kl, anchor = found["kl"], found["anchor"]
    return float(torch.cosine_similarity(kl, anchor, dim=0)), float(kl.norm() / anchor.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--checkpoint", default="latest")
    arguments = parser.parse_args()
    silence_libraries()
    generated = Generated(arguments.folder, arguments.checkpoint)
    cosine, ratio = gradients(generated)
    print(f"gradients of kl and anchor: cosine {cosine:.2f}, size {ratio:.2f} to 1", flush=True)
    own = learn(generated, arguments.steps)
    print(f"{'t':>10}  {'own':>7} {'fake':>7} {'real':>7}  {'error':>6} {'push':>6}")
    for quarter in range(QUARTERS):
        *losses, error, push = compare(generated, own, quarter)
        told = " ".join(f"{loss:7.4f}" for loss in losses)
        print(f"{quarter / QUARTERS:.2f}-{(quarter + 1) / QUARTERS:.2f}   {told}  {error:6.2f} {push:6.2f}", flush=True)


if __name__ == "__main__":
    main()
