"""Which records a step takes: full batches of one bucket, a pure function of the step and the seed."""

from bisect import bisect_right
from collections.abc import Callable

import torch
from torch import Tensor


class Order:
    """Every bucket is an endless stream, each epoch of it in another order; an epoch's steps take from them by turns.

    What of a bucket does not fill a batch comes first in the next epoch, so nothing is dropped. A pure function of its
    arguments: resuming needs no saved position.
    """

    def __init__(self, buckets: Tensor) -> None:
        """buckets: (N,) int64, each record's 0, 1, ...; the records of one make batches together."""
        self.count = len(buckets)
        self._members = buckets.argsort(stable=True).split(buckets.bincount().tolist())
        self._kept: dict[str, tuple[tuple[int, ...], Tensor]] = {}

    def scarce(self, size: int) -> list[int]:
        """The records of each bucket that has fewer than a batch: it takes them from several epochs, some twice."""
        return [len(members) for members in self._members if 0 < len(members) < size]

    def records(self, step: int, size: int, seed: int) -> Tensor:
        """The records of a step, (size,) int64, all of one bucket."""
        epoch, place = self._find(step, size)
        turns = self._keep("turns", (epoch, size, seed), self._turns)
        bucket = int(turns[place])
        taken = self._filled(bucket, epoch, size) + int((turns[:place] == bucket).sum())
        return self._batch(bucket, taken, size, seed)

    def _filled(self, bucket: int, epochs: int, size: int) -> int:
        """How many batches a bucket has filled by the end of so many epochs."""
        return epochs * len(self._members[bucket]) // size

    def _find(self, step: int, size: int) -> tuple[int, int]:
        """The epoch of a step and its place among the steps of the epoch."""

        def before(epoch: int) -> int:
            return sum(self._filled(bucket, epoch, size) for bucket in range(len(self._members)))

        most = (step + len(self._members) + 1) * size // self.count + 2  # more epochs than there can have been
        epoch = bisect_right(range(most), step, key=before) - 1
        return epoch, step - before(epoch)

    def _turns(self, epoch: int, size: int, seed: int) -> Tensor:
        """Whose turn it is at each step of an epoch: every bucket as often as it fills a batch."""
        buckets = range(len(self._members))
        filled = [self._filled(bucket, epoch + 1, size) - self._filled(bucket, epoch, size) for bucket in buckets]
        turns = torch.arange(len(filled)).repeat_interleave(torch.tensor(filled))
        return turns[torch.randperm(len(turns), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))]

    def _batch(self, bucket: int, index: int, size: int, seed: int) -> Tensor:
        """A bucket's batch number `index`."""
        length, first = len(self._members[bucket]), index * size
        epochs = range(first // length, (first + size - 1) // length + 1)
        name = f"bucket {bucket}"
        order = torch.cat([self._keep(name, (bucket, epoch, seed), self._shuffled) for epoch in epochs])
        return order[first - epochs[0] * length :][:size]

    def _shuffled(self, bucket: int, epoch: int, seed: int) -> Tensor:
        """The records of a bucket in the order of an epoch."""
        members = self._members[bucket]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + bucket * 7_919 + epoch)
        return members[torch.randperm(len(members), generator=generator)]

    def _keep(self, name: str, key: tuple[int, ...], make: Callable[..., Tensor]) -> Tensor:
        """make(*key), or what it made when it was last asked for the same: steps come one after another."""
        if name not in self._kept or self._kept[name][0] != key:
            self._kept[name] = key, make(*key)
        return self._kept[name][1]
