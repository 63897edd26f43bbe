"""What an objective is given, what it draws, and what it returns."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from apexgen.condition import Condition
from apexgen.discriminator import Discriminator
from apexgen.shift import Shift
from apexgen.velocities import Velocity

GIVE_PICTURES = 'name a source with pictures, or write objective.name = "apex" with anchor = "teacher"'
PROMPTS_ONLY = f"the objective needs pictures and the data has prompts only; {GIVE_PICTURES}"


@dataclass(frozen=True)
class Batch:
    """One batch of conditions, with pictures where the objective needs them."""

    c: Condition  # batch B
    null: Condition  # the empty condition, batch 1 or B
    x: Tensor | None = None  # (B, ...) clean latents

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        x = None if self.x is None else self.x.to(device)
        return Batch(self.c.to(device), self.null.to(device), x)

    def rows(self, rows: slice) -> "Batch":
        """A part of the batch."""
        null = self.null if len(self.null) == 1 else self.null.select(rows)
        return Batch(self.c.select(rows), null, None if self.x is None else self.x[rows])


@dataclass(frozen=True)
class Nets:
    """Three velocities, and what an objective asks for beside them.

    Only the student's parameters ever receive a gradient, and the fake's, the discriminator's and a learned shift's
    where there is one.
    """

    student: Velocity
    teacher: Velocity
    ema: Velocity
    fake: Velocity | None = None  # a second network, for objectives that need one: the flow of the student's samples
    snapshot: Velocity | None = None  # the student as it was when `takes_snapshot` last said so
    discriminator: Discriminator | None = None  # heads on the teacher's features, for `blocks_with_heads`
    shift: Shift | None = None  # of the condition, where `new_shift` makes one


@dataclass(frozen=True)
class Draw:
    """All the randomness of one step, drawn before anything is computed."""

    noises: tuple[Tensor, ...]  # each (B, ...) standard normal, float32
    times: tuple[Tensor, ...]  # each (B, 1, ...) float32
    # By the field that gives a term a share of the step, what each row weighs in it, (B,) on the CPU: 0 or 1 / share.
    shares: Mapping[str, Tensor] = field(default_factory=dict)

    def rows(self, rows: slice) -> "Draw":
        """The same for a part of the batch."""
        shares = {name: weights[rows] for name, weights in self.shares.items()}
        return Draw(tuple(noise[rows] for noise in self.noises), tuple(time[rows] for time in self.times), shares)


@dataclass(frozen=True)
class Loss:
    """One term: what to call it, what to descend, what to write down beside it."""

    name: str
    value: Tensor  # scalar, with its weight
    logs: dict[str, Tensor] = field(default_factory=dict)  # detached scalars


class Objective(ABC):
    """A frozen dataclass whose fields are the hyperparameters of one paper."""

    @property
    @abstractmethod
    def needs_pictures(self) -> bool:
        """Whether `terms` reads Batch.x; where not, prompts are all the data needed."""

    @property
    def needs_second_time(self) -> bool:
        """Whether the network must read r; a stock one does not."""
        return False

    @property
    def needs_fake_network(self) -> bool:
        """Whether `terms` trains Nets.fake, a second network; a LoRA of its own on the same weights will do."""
        return False

    @property
    def derivative_step(self) -> float | None:
        """Half width of the difference that `along_flow` takes, 0 for forward mode; None where it is not asked."""
        return None

    @property
    def least_steps(self) -> int:
        """Training steps that only prepare: a run of no more ends before its student has learnt anything."""
        return int(getattr(self, "warmup", 0))

    @property
    def term_shares(self) -> dict[str, float]:
        """The share of a step's samples that a term sees, by the field that says it."""
        return {}

    @property
    def first_steps(self) -> int:
        """Training steps, the first ones, that may cost otherwise than those after them."""
        return self.least_steps

    @property
    def period(self) -> int:
        """Of how many training steps, after those that prepare, one has every term."""
        return 1

    @property
    def renoises(self) -> bool:
        """Whether its students are sampled by jumps to the data and back, `renoise`; others take straight steps."""
        return False

    def takes_snapshot(self, step: int) -> bool:
        """Whether Nets.snapshot becomes what the student is just before training step `step`."""
        return False

    def blocks_with_heads(self, count: int) -> Sequence[int]:
        """Which of a network's `count` blocks Nets.discriminator reads, a head on each; where none, there is none."""
        return ()

    def new_shift(self, text: int, pooled: int | None, seed: int) -> Shift | None:
        """Nets.shift for texts, and pooled vectors, of these widths; None where two numbers say it all."""
        return None

    @abstractmethod
    def draw(self, shape: tuple[int, ...], generator: Generator) -> Draw:
        """The noises and times of one step for latents of the given shape, batch first."""

    @abstractmethod
    def terms(self, nets: Nets, batch: Batch, draw: Draw, step: int) -> Iterator[Loss]:
        """The loss terms of training step `step`, one after another; they share no graph.

        Call backward on each before asking for the next: peak memory is then one term's graph.
        ValueError where pictures are needed and the batch has none.
        """


def pictures(batch: Batch) -> Tensor:
    """The batch's clean latents, or a ValueError that says what to do."""
    if batch.x is None:
        raise ValueError(PROMPTS_ONLY)
    return batch.x


def rows_seen(share: float, count: int) -> int:
    """How many of `count` rows a share in (0, 1] is: round(share * count), one at least."""
    return max(1, round(share * count))


def fewest_rows(of: Mapping[str, float], most: int) -> int:
    """The fewest rows, two to `most`, of which every share is what it says; `most` where some is of none."""
    fits = (n for n in range(2, most) if all(abs(rows_seen(share, n) / n - share) < 1e-3 for share in of.values()))
    return next(fits, most)


def shares(count: int, of: Mapping[str, float]) -> dict[str, Tensor]:
    """Draw.shares of `count` rows: `rows_seen` of them, evenly spread; no entry where that is all.

    Cut into parts, rows weigh what they did in the whole: the parts' terms add up to the whole's, also where some of
    them have no row of it.
    """
    seen, row = {name: rows_seen(share, count) for name, share in of.items()}, torch.arange(count)
    return {
        name: ((row + 1) * rows // count - row * rows // count) * (count / rows)
        for name, rows in seen.items()
        if rows < count
    }


def of_share(weights: Tensor | None, term: Callable[[Tensor | slice], Tensor]) -> Tensor:
    """A term, a mean over the rows it is called with, of those that `weights` (B,) see; 0 where they see none.

    weights: an entry of Draw.shares, or None, where all rows weigh one.
    """
    if weights is None:
        return term(slice(None))
    if not weights.any():
        return torch.zeros(())
    return float(weights.mean()) * term(weights > 0)


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """The mean over all elements of (a - b)^2, of two tensors of one shape (B, ...)."""
    return (a - b).square().mean()


def robust(error: Tensor, power: float, floor: float, weight: Tensor | float = 1.0) -> Tensor:
    """The mean over samples of weight m sg(m + floor)^-power, m the mean square of a sample's error.

    error: (B, ...); weight: a number, or (B,).

    power 0 is the mean square; 1/2 acts like the error's norm, 1 like its logarithm, so that large errors count less.
    Geng et al., https://arxiv.org/abs/2505.13447, Eq. 22, with means in place of sums.
    """
    m = error.square().flatten(1).mean(1)
    return (weight * m * (m.detach() + floor) ** -power).mean()


def clamped(x: Tensor, bound: float) -> Tensor:
    """x (B, ...) cut to [-bound, bound]; what is not finite stays nan, as 0 * inf is: no divergence is hidden."""
    return x.clamp(-bound, bound) + 0 * x
