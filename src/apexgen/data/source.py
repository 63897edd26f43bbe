"""A source: records in a stable order, from wherever they are kept."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from apexgen.config import Data
from apexgen.data.record import Record


class Source(ABC):
    """Records in a stable order; str(source) says in one line what it is."""

    @abstractmethod
    def records(self, start: int = 0) -> Iterator[Record]:
        """The records from a position on: what `iter(source)` gives after `start` records."""

    def length(self) -> int | None:
        """How many records there are, where that is known without reading everything."""
        return None

    def __iter__(self) -> Iterator[Record]:
        return self.records()


def open_source(data: Data, pictures: bool = True) -> Source:
    """The source that the settings name; without pictures, theirs are not read and are None.

    Raises ValueError, one line, for a source that is missing, empty or of no known kind, and for an unknown column.
    """
    raise NotImplementedError(data.source, pictures)
