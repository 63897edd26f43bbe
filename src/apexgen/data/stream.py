"""An endless stream of a source's records: every epoch in another order, split over ranks, resumed where it was.

The order is a function of the seed: the parts of a source are shuffled, and the records of a part within blocks. So a
position is a few numbers, and no buffer has to be saved.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset

from apexgen.data.base import Entry, Source
from apexgen.data.mixture import Mixture, Turns
from apexgen.data.record import Record

BLOCK = 1024  # records that are shuffled together; a rank holds its own ones' pictures

Drawn = tuple[Record, str]  # and the caption that is drawn in this epoch


class Stream(IterableDataset[Drawn]):
    """The records of one rank, each once an epoch over all ranks; `state_dict` is the same on every rank.

    A position may be loaded with another number of ranks: what was drawn is not drawn again in its epoch.
    """

    def __init__(self, source: Source, seed: int, rank: int = 0, world: int = 1, block: int = BLOCK) -> None:
        self.source, self.parts, self.seed = source, source.parts(), seed
        self.rank, self.world, self.block = rank, world, block
        self.drawn = 0  # by all ranks
        self._anchor = (0, 0, 0, 0)  # epoch, place among its parts, first entry of the block, drawn before the block

    def state_dict(self) -> dict[str, Any]:
        """The position, a few numbers."""
        return {"drawn": self.drawn, "anchor": list(self._anchor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position that `state_dict` gave."""
        epoch, place, first, before = state["anchor"]
        self.drawn, self._anchor = state["drawn"], (epoch, place, first, before)

    def __iter__(self) -> Iterator[Drawn]:
        """What comes next. ValueError for a source without records."""
        base = self.drawn
        for anchor, entries in self._blocks():
            order = _shuffled(len(entries), self.seed, *anchor[:3])
            mine = [
                place
                for number, place in enumerate(order, start=anchor[3])
                if number >= base and (number - base) % self.world == self.rank
            ]
            records = {place: entries[place].record() for place in sorted(mine)}  # read in the order of the file
            for place in mine:
                self._anchor, self.drawn = anchor, self.drawn + self.world
                record = records.pop(place)
                yield record, record.caption(self.seed, anchor[0])

    def _blocks(self) -> Iterator[tuple[tuple[int, int, int, int], list[Entry]]]:
        epoch, place, first, drawn = self._anchor
        while True:
            began = drawn
            order = _shuffled(len(self.parts), self.seed, epoch)
            for position in range(place, len(order)):
                entries = islice(self.parts[order[position]].entries(), first, None)
                while block := list(islice(entries, self.block)):
                    yield (epoch, position, first, drawn), block
                    first, drawn = first + len(block), drawn + len(block)
                first = 0
            if drawn == began and place == 0:
                raise ValueError(f"{self.source} has no records that can be used")
            epoch, place = epoch + 1, 0


class MixedStream(IterableDataset[Drawn]):
    """Streams by turns: each goes through its own epochs, so that a small source comes again and the shares hold."""

    def __init__(self, streams: Sequence[Stream], weights: Sequence[float], seed: int) -> None:
        self.streams, self.turns, self.drawn = streams, Turns(weights, seed), 0

    def state_dict(self) -> dict[str, Any]:
        """The position, a few numbers."""
        return {"drawn": self.drawn, "streams": [stream.state_dict() for stream in self.streams]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position that `state_dict` gave."""
        self.drawn = state["drawn"]
        for stream, of_stream in zip(self.streams, state["streams"], strict=True):
            stream.load_state_dict(of_stream)

    def __iter__(self) -> Iterator[Drawn]:
        opened = [iter(stream) for stream in self.streams]
        while True:
            turn, self.drawn = self.turns[self.drawn], self.drawn + 1
            yield next(opened[turn])


def open_stream(source: Source, seed: int, rank: int = 0, world: int = 1) -> Stream | MixedStream:
    """An endless stream of a source, or of a mixture's sources by weight."""
    if not isinstance(source, Mixture):
        return Stream(source, seed, rank, world)
    streams = [Stream(part, seed, rank, world) for part in source.sources]
    return MixedStream(streams, source.weights, seed)


def _shuffled(count: int, *numbers: int) -> list[int]:
    """0 .. count - 1 in an order that the numbers decide."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number) % 2**63
    return [int(place) for place in torch.randperm(count, generator=torch.Generator().manual_seed(mixed))]
