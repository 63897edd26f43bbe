"""Bad records: skipped, counted, listed with the reason, and too many of them stop the run."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from apexgen.files import write_whole

FIRST = 200  # records that are seen before their share of bad ones is judged, unless the source has ended

FILE = "skipped.jsonl"  # in a run's folder, or a cache's


def as_utf8(text: str) -> str:
    """A text with escapes for what is no UTF-8: a file's name may hold it, and the list of what is bad may not."""
    return text.encode("utf-8", "backslashreplace").decode()


class TooManyBad(ValueError):
    """More records are bad than may be; it knows them all."""

    def __init__(self, line: str, skipped: "Skipped") -> None:
        super().__init__(line)
        self.skipped = skipped


@contextmanager
def listed_in(folder: Path) -> Iterator[None]:
    """Inside, where too many records are bad, a folder gets their list before all stops."""
    try:
        yield
    except TooManyBad as error:
        error.skipped.write(folder)
        raise


@dataclass
class Skipped:
    """What a source left out, and why."""

    origin: str  # what the source is called in an error
    limit: float  # the share of bad records above which reading stops, in [0, 1]
    why: dict[str, str] = field(default_factory=dict)  # by the record's key or path
    counts: dict[str, int] = field(default_factory=dict)  # records that were seen, good and bad, by who reads them
    whole: bool = False  # whether every record was tried
    readers: int = 1  # among how many processes the source is shared out: its bad records may all be in one share
    _untold: dict[str, str] = field(default_factory=dict, init=False, repr=False)  # what other processes don't know
    _judged_whole: bool = field(default=False, init=False, repr=False)

    @property
    def seen(self) -> int:
        """Records that were seen, good and bad, each once however often it was read."""
        return sum(self.counts.values())

    def count(self, reader: str, number: int) -> None:
        """Note that a reader has come to its record of a number, 1, 2, ..."""
        self.counts[reader] = max(number, self.counts.get(reader, 0))

    def add(self, path: str, why: str) -> None:
        """Count a bad record. TooManyBad where there are too many, whatever other readers find."""
        self.note(path, why)
        self._judge(max(self.seen, FIRST) * self.readers)

    def note(self, path: str, why: str) -> None:
        """Count a bad record, and leave it to others to judge."""
        path, why = as_utf8(path), as_utf8(why)
        if path not in self.why:
            self.why[path] = self._untold[path] = why

    def tell(self) -> tuple[dict[str, str], bool]:
        """What was left out here since this was last asked, and whether every record was tried."""
        told, self._untold = self._untold, {}
        return told, self.whole

    def hear(self, told: Sequence[tuple[dict[str, str], bool]]) -> bool:
        """Take over what each process tells; whether there is anything new to judge, the same answer in all."""
        for found, whole in told:
            self.why |= found
            self.whole |= whole
        new = any(found for found, _ in told) or self.whole != self._judged_whole
        self._judged_whole = self.whole
        return new

    def judge(self) -> None:
        """TooManyBad where too many records are; before every one was tried, few of them are not judged."""
        if self.whole:
            self.finish()
        else:
            self._judge(max(self.seen, FIRST))

    def finish(self) -> None:
        """Judge a source that was read to its end. TooManyBad where too many were, or nothing is left."""
        self._judge(self.seen)
        if self.seen == len(self.why):
            raise TooManyBad(f"{self.origin} has no records that can be used{self._first()}", self)

    def __add__(self, other: "Skipped") -> "Skipped":
        both = replace(self, why=dict(self.why), counts=dict(self.counts))
        both.add_all(other)
        return both

    def add_all(self, other: "Skipped") -> None:
        """Take over what another reading of the source left out."""
        self.why |= other.why
        for reader, number in other.counts.items():
            self.count(reader, number)

    def write(self, folder: Path) -> None:
        """List what was skipped in a folder, a JSON object a line; nothing where nothing was."""
        if self.why:
            folder.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps({"path": path, "why": why}, ensure_ascii=False) for path, why in self.why.items()]
            write_whole(folder / FILE, ("\n".join(lines) + "\n").encode())

    def __str__(self) -> str:
        return f"skipped {len(self.why):,} of {self.seen:,} records{self._first()}"

    def _judge(self, seen: int) -> None:
        if len(self.why) > self.limit * seen:
            raise TooManyBad(
                f"{self.origin}: {len(self.why):,} of {self.seen:,} records are bad{self._first()}; "
                f"mend them, or raise data.bad_limit = {self.limit}",
                self,
            )

    def _first(self) -> str:
        if not self.why:
            return ""
        path, why = next(iter(self.why.items()))
        return f"; the first is {path}: {why}"
