"""The processes that do one piece of work together: what they share, sum, decide and do in common.

torchrun or `accelerate launch` starts them and says so in the environment; a process alone is a team of one, whose
methods do nothing. In training every process draws the whole step and takes its rows of it, so no random state and no
place in the data belongs to a process: there is none to save.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from apexgen.config import Run
from apexgen.interrupt import Elsewhere, Stopped

BUCKET = 64_000_000  # numbers that one collective carries at most: what the copy it needs is held to
PATIENCE = timedelta(hours=12)  # with one that draws or writes for longer than the others; a dead one is seen at once
Result = TypeVar("Result")


class Team:
    """This process among those that work together."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def share(self, samples: int) -> range:
        """This process's rows of a step of so many samples, a multiple of the team's count."""
        each = samples // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def average_gradients(self, weights: Iterable[Tensor]) -> None:
        """Gradients become their means over the processes, in one collective for every BUCKET of numbers.

        A weight that has one in some process has it in all: where a term saw no row, it is zero.
        Called once a step, after all terms and batches: torch's own wrapper would sum at every backward, and sees
        none of the forwards that run under other weights.
        """
        if self.count == 1:
            return
        held = list(weights)
        somewhere = torch.tensor([weight.grad is not None for weight in held], dtype=torch.uint8)
        dist.all_reduce(somewhere, op=dist.ReduceOp.MAX)
        moved = [weight for weight, has in zip(held, somewhere.tolist(), strict=True) if has]
        for weight in moved:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        for bucket in _buckets([weight.grad for weight in moved if weight.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            flat /= self.count
            for gradient, piece in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                gradient.copy_(piece.view_as(gradient))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The means of scalars, of the same names in every process; what is not finite in one is so in all."""
        if self.count == 1:
            return values
        summed = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(summed)
        return dict(zip(values, (summed / self.count).tolist(), strict=True))

    def any(self, said: bool) -> bool:
        """Whether one of the processes said so: the same answer in all."""
        if self.count == 1:
            return said
        heard = torch.tensor(int(said))
        dist.all_reduce(heard)
        return bool(heard)

    def by_first(self, act: Callable[[], Result]) -> Result:
        """What the first process's act returns, in all of them; the others wait. Raises as `by_each` does."""
        result: Result = self.by_each(lambda: act() if self.first else None)[0]  # type: ignore[assignment]
        return result

    def by_each(self, act: Callable[[], Result]) -> list[Result]:
        """What every process's act returns, in their order, in all of them; they wait for one another.

        Where some raise, the first of those does, and the others raise Elsewhere, or Stopped as it did: none is left
        waiting.
        """
        if self.count == 1:
            return [act()]
        said: list[Any] = [None] * self.count
        result, raised = None, None
        try:
            result = act()
        except BaseException as error:
            raised = error
        why = raised and (str(raised) or type(raised).__name__)
        dist.all_gather_object(said, (result, why, Stopped if isinstance(raised, Stopped) else Elsewhere))
        failed = {rank: kind(why) for rank, (_, why, kind) in enumerate(said) if why}
        if raised is not None and self.rank == min(failed):
            raise raised
        if failed:
            raise failed[min(failed)]
        return [result for result, *_ in said]

    def gather(self, act: Callable[[], Result]) -> list[Result]:
        """What every process's act returns, in the first process alone; nothing in the others. Raises as `by_each`."""
        held: list[Result] = []
        self.by_each(lambda: held.append(act()))
        if self.count == 1:
            return held
        said: list[Any] | None = [None] * self.count if self.first else None
        dist.gather_object(held[0], said)
        return said or []

    def agreed(self, error: Exception) -> Exception:
        """An error that all processes meet alike, for each to raise: the first tells of it."""
        return error if self.first else Elsewhere(str(error))


ALONE = Team()


def take_place() -> Team:
    """This process's place as the launcher told it, and its device; not connected: it can share and not speak."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return Team(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def assembled() -> Iterator[Team]:
    """The team that the launcher started, connected inside."""
    team = take_place()
    ours = team.count > 1 and not dist.is_initialized()
    if ours:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield team
    finally:
        if ours:
            dist.destroy_process_group()


def settle(run: Run) -> Run:
    """The run with train.parallel and train.processes as the launcher has it; one of a single process as it is.

    ValueError where they were given and the launcher started another number of processes.
    """
    given, count = run.train, take_place().count
    if count == 1 and given.parallel is not None:
        raise ValueError(
            f'train.parallel = "{given.parallel}" is of several processes and here is one; remove it, or write: '
            "torchrun --nproc-per-node 2 -m apexgen train ..."
        )
    if given.processes not in (None, count):
        raise ValueError(f"train.processes = {given.processes} and here are {count}; remove it")
    if given.parallel == "fsdp" and run.model.tune == "lora":
        raise ValueError('train.parallel = "fsdp" is for model.tune = "full": a LoRA is small; write parallel = "ddp"')
    if count == 1:
        return run
    settled = given.model_copy(update={"parallel": given.parallel or "ddp", "processes": count})
    return run.model_copy(update={"train": settled})


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, as many together as BUCKET and one type allow."""
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        if bucket and (held + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.numel()
    if bucket:
        yield bucket
