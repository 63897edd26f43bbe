"""Several sources drawn from by weight: whose turn it is, is a function of the seed and the place alone."""

from collections.abc import Iterator, Sequence
from itertools import chain

import torch

from apexgen.data.base import Entry, Source

TURNS = 10_000  # in every block of as many draws each source has its exact share, rounded


class Turns:
    """Whose turn it is at a place: in every block of TURNS, each source in proportion to its weight, shuffled.

    ValueError where a source would never have a turn.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        total, self.seed = sum(weights), seed
        marks = torch.tensor([0.0, *weights], dtype=torch.float64).cumsum(0) / total * TURNS
        shares = marks.round().long().diff()
        if 0 in shares:
            number = shares.tolist().index(0)
            raise ValueError(
                f"data.mixture.{number}.weight = {weights[number]:g}: it would never be drawn from, the least share "
                f"being one in {TURNS:,}; write {total / TURNS:.2g}, or remove the source"
            )
        self._sorted = torch.arange(len(weights)).repeat_interleave(shares)
        self._block: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, place: int) -> int:
        """The number of the source that gives the record at a place, 0, 1, ..."""
        block, within = divmod(place, TURNS)
        if block != self._block[0]:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + block)
            self._block = block, self._sorted[torch.randperm(TURNS, generator=generator)].tolist()
        return self._block[1][within]


class Mixture(Source):
    """Sources interleaved by weight, until it is the turn of one that has no more: the shares hold to the end."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], seed: int) -> None:
        self.sources, self.weights, self.skipped = sources, weights, sources[0].skipped
        self.turns = Turns(weights, seed)

    def __str__(self) -> str:
        total = sum(self.weights)
        shares = zip(self.sources, self.weights, strict=True)
        return "a mixture: " + "; ".join(f"{weight / total:.1%} of {source}" for source, weight in shares)

    def entries(self) -> Iterator[Entry]:
        """Each source in the order of its file. ValueError for one without records."""
        return self._mixed([source.entries() for source in self.sources])

    def in_epoch(self, epoch: int) -> Iterator[Entry]:
        """Each source in its order of an epoch; the turns stay, so that every epoch has as many entries.

        ValueError for a source without records.
        """
        return self._mixed([source.in_epoch(epoch) for source in self.sources])

    def _mixed(self, opened: Sequence[Iterator[Entry]]) -> Iterator[Entry]:
        streams, place = list(map(self._begun, range(len(opened)), opened)), 0
        while (entry := next(streams[self.turns[place]], None)) is not None:
            yield entry
            place += 1

    def _begun(self, number: int, entries: Iterator[Entry]) -> Iterator[Entry]:
        """A source's entries; ValueError where it has none, for its first turn would end every epoch."""
        first = next(entries, None)
        if first is None:
            source = self.sources[number]
            raise ValueError(f"data.mixture.{number}: {source}, has no records that can be used; remove it")
        return chain([first], entries)

    def length(self) -> int | None:
        return None  # bad records, which only reading finds, decide which source ends first
