"""A source read over and over: every epoch in another order, in blocks of records that end where the epoch does."""

from collections.abc import Iterator, Mapping
from itertools import islice

from apexgen.data.base import Entry, Source
from apexgen.data.record import Record


class Stream:
    """The epochs of a source, cut into blocks. How long an epoch is, is found by reading the first to its end.

    Whoever goes on passes over whole parts by their counts, and reads none of them again.
    """

    def __init__(self, source: Source, size: int) -> None:
        """size: records of a block; the last of an epoch may have fewer."""
        self.source, self.size, self.held = source, size, 2
        self._names = [str(part) for part in source.parts()]
        self._counts: dict[str, int] = {}
        self._blocks: dict[tuple[int, int], list[Record]] = {}
        self._at, self._entries = (0, 0), self._from(0, 0)  # the epoch and the place that are read next

    @property
    def counts(self) -> Mapping[str, int]:
        """The usable records of each part that was read to its end."""
        return self._counts

    @property
    def length(self) -> int | None:
        """The records of an epoch; None while some part was not read to its end."""
        known = [self._counts[name] for name in self._names if name in self._counts]
        return sum(known) if len(known) == len(self._names) else None

    def know(self, counts: Mapping[str, int]) -> None:
        """Take over the counts of an earlier reading."""
        self._counts |= counts

    def find(self, number: int) -> tuple[int, int]:
        """The epoch of the record of a number, counted through all of them one after another, and its place there."""
        if self.length is None:
            self.block(0, number // self.size)  # there are as many, or the epoch's end is found
        return (0, number) if self.length is None else divmod(number, self.length)

    def block(self, epoch: int, index: int) -> list[Record]:
        """The records of a block of an epoch; the last `held` that were read are at hand."""
        key, first = (epoch, index), index * self.size
        if key not in self._blocks:
            if self._at != (epoch, first):
                self._entries = self._from(epoch, first)
            records = [entry.record() for entry in islice(self._entries, self.size)]
            self._blocks = dict([*self._blocks.items()][1 - self.held :]) | {key: records}
            self._at = epoch, first + len(records)
        return self._blocks[key]

    def _from(self, epoch: int, start: int) -> Iterator[Entry]:
        """The entries of an epoch from a place on."""
        for part in self.source.parts_in(epoch):
            name, passed = str(part), 0
            if self._counts.get(name, start + 1) <= start:
                start -= self._counts[name]
                continue
            for passed, entry in enumerate(part.in_epoch(epoch), start=1):
                if passed > start:
                    yield entry
            start = max(0, start - passed)
            if self._counts.setdefault(name, passed) != passed:
                raise ValueError(
                    f"{name}, has {passed:,} records that can be used and had {self._counts[name]:,}; "
                    "put it back as it was, or begin in another folder"
                )
