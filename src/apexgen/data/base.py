"""A source: records in a stable order, from wherever they are kept."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import torch

from apexgen.data.columns import caption_fault
from apexgen.data.record import Record
from apexgen.data.skipped import Skipped, as_utf8


class Unreadable(Exception):
    """A picture's file can't be read, and why."""


@dataclass(frozen=True)
class Entry:
    """What a source finds before anything is checked, and before a picture is read."""

    key: str
    captions: Sequence[tuple[str, float]]  # text, and how often it is drawn, relative to the others
    load: Callable[[], bytes | None]  # reads the picture, or raises Unreadable; of one part, in its entries' order
    fault: str | None = None  # why it can't be used

    def record(self) -> Record:
        """The record, its picture read."""
        total = sum(weight for _, weight in self.captions)
        texts, weights = zip(*((text, weight / total) for text, weight in self.captions), strict=True)
        try:
            return Record(self.key, texts, weights, self.load())
        except Unreadable as error:
            return Record(self.key, texts, weights, None, str(error))


class Source(ABC):
    """Records in a stable order; str(source) says in one line what it is."""

    skipped: Skipped

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """The entries that can be used, in the order of the records; no picture is read before `Entry.record`."""

    @abstractmethod
    def __str__(self) -> str: ...

    def parts(self) -> Sequence["Source"]:
        """What it is made of, each part quick to begin with: files, or itself."""
        return (self,)

    def parts_in(self, epoch: int) -> Sequence["Source"]:
        """Its parts in the order of an epoch, 0, 1, ..., each of which has another."""
        parts = self.parts()
        order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(epoch))
        return [parts[place] for place in order.tolist()]

    def in_epoch(self, epoch: int) -> Iterator[Entry]:
        """Its entries in the order of an epoch."""
        return chain.from_iterable(
            part.entries() if part is self else part.in_epoch(epoch) for part in self.parts_in(epoch)
        )

    def length(self) -> int | None:
        """How many records there are, bad ones too, where that is known without reading everything."""
        return None

    def records(self, start: int = 0) -> Iterator[Record]:
        """The records from a position on: what `iter(source)` gives after `start` records."""
        return (entry.record() for entry in islice(self.entries(), start, None))

    def __iter__(self) -> Iterator[Record]:
        return self.records()


class Reader(Source):
    """A source that reads its own files; what it finds is checked, and the faulty is skipped and told of."""

    within: str = ""  # how its keys begin: of several sources in one, each has its own

    def __init__(self, name: str, skipped: Skipped) -> None:
        self.name, self.skipped = name, skipped

    def __str__(self) -> str:
        return self.name

    @abstractmethod
    def found(self) -> Iterator[Entry]:
        """All that is there, in a stable order. Captions lose their blanks, and empty ones go."""

    def entries(self) -> Iterator[Entry]:
        seen: set[str] = set()
        for number, entry in enumerate(self.found(), start=1):
            key = as_utf8(self.within + entry.key)
            path = f"{key}, record {number}" if key in seen else key  # the first of a name may be good
            self.skipped.count(self.within + self.name, number)
            captions = [(text.strip(), weight) for text, weight in entry.captions if text and text.strip()]
            fault = entry.fault
            if fault is None and key in seen:
                fault = "the same key came before"
            elif fault is None:
                fault = caption_fault([text for text, _ in captions])
            seen.add(key)
            if fault is not None:
                self.skipped.add(path, fault)
            else:
                yield Entry(key, captions, entry.load)


class Chain(Source):
    """Sources one after another."""

    def __init__(self, name: str, sources: Sequence[Source], skipped: Skipped) -> None:
        self.name, self.sources, self.skipped = name, sources, skipped

    def __str__(self) -> str:
        return self.name

    def entries(self) -> Iterator[Entry]:
        return chain.from_iterable(source.entries() for source in self.sources)

    def parts(self) -> Sequence[Source]:
        return [part for source in self.sources for part in source.parts()]

    def length(self) -> int | None:
        lengths = [source.length() for source in self.sources]
        return None if None in lengths else sum(length for length in lengths if length is not None)


class First(Source):
    """The first so many records of a source."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit, self.skipped = source, limit, source.skipped

    def __str__(self) -> str:
        return f"{self.source}, the first {self.limit:,} records"

    def entries(self) -> Iterator[Entry]:
        return islice(self.source.entries(), self.limit)

    def length(self) -> int | None:
        length = self.source.length()
        return None if length is None else min(length, self.limit)
