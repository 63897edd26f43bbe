"""WebDataset tars: files of one name and several endings are a record."""

import json
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from apexgen.config import Origin
from apexgen.data.base import Entry, Reader
from apexgen.data.columns import Columns, find_columns, path_fault
from apexgen.data.extra import need_data_extra
from apexgen.data.files import PICTURE_ENDINGS, caption_lines
from apexgen.data.skipped import Skipped

ENDINGS = (".tar", ".tar.gz", ".tgz")
PEEKED = 16  # records at the beginning that tell which columns there are


class TarSource(Reader):
    """The records of one tar: a picture, and captions in .txt, one a line, or in the keys of .json."""

    damage: str | None = None  # why it gives nothing, where it is damaged before any caption

    def __init__(self, file: Path, origin: Origin, skipped: Skipped, pictures: bool) -> None:
        need_data_extra()
        super().__init__(f"{file}, a WebDataset tar", skipped)
        self.file, self.pictures = file, pictures
        names: dict[str, bool] = {}  # and whether it is text
        faults: list[str] = []
        for sample in islice(self._samples(faults.append), PEEKED):
            row, _ = _row(sample)
            names |= {name: isinstance(value, str | list) for name, value in row.items()}
            names |= {name: False for name in sample if f".{name}" in PICTURE_ENDINGS}
        try:
            self.columns = find_columns(origin, names, [name for name, text in names.items() if text])
        except ValueError:
            if not faults:
                raise
            self.damage, self.columns = faults[0], Columns(origin.picture, origin.captions, origin.filter)

    def found(self) -> Iterator[Entry]:
        for sample in self._samples(self._note):
            key = f"{self.file.name}/{sample['__key__']}"
            row, fault = _row(sample)
            fault = path_fault(sample["__key__"]) or fault
            if fault is not None or self.columns.admits(row):
                picture = self._picture(sample) if self.pictures else None
                yield Entry(key, self.columns.texts(row), partial(_same, picture), fault)

    def _picture(self, sample: dict[str, Any]) -> bytes | None:
        """The picture by its column; where that is one of several picture endings, whichever the record has."""
        if self.columns.picture in sample:
            return bytes(sample[self.columns.picture])
        return next((bytes(sample[name]) for name in sample if f".{name}" in PICTURE_ENDINGS), None)

    def _note(self, fault: str) -> None:
        self.skipped.count(f"{self.within}{self.name}, its end", 1)
        self.skipped.add(self.within + self.file.name, fault)

    def _samples(self, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """What the tar holds, undecoded. A tar that is cut short gives what comes before the cut, and tells of it."""
        from webdataset.tariterators import group_by_keys, tar_file_expander

        def passed_over(error: Exception) -> bool:
            if not isinstance(error, tarfile.TarError | EOFError | OSError | ValueError):
                raise error
            tell(_first_line(error))
            return True

        try:
            stream = self.file.open("rb")
        except OSError as error:
            tell(str(error.strerror))
            return
        with stream:
            files = tar_file_expander([{"url": str(self.file), "stream": stream}], handler=passed_over)
            yield from group_by_keys(files, handler=passed_over)
        if self.file.suffix == ".tar" and self.file.stat().st_size % tarfile.BLOCKSIZE:
            tell("unexpected end of data")  # in a header, of which tarfile says nothing


def _row(sample: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The texts of a record and the keys of its .json, and why they can't be read."""
    row: dict[str, Any] = {}
    try:
        if "txt" in sample:
            row["txt"] = [text for text, _ in caption_lines(sample["txt"])]
        if "json" in sample:
            row |= json.loads(sample["json"])
    except (ValueError, TypeError, RecursionError) as error:
        return row, f"its text can't be read: {str(error).splitlines()[0]}"
    return row, None


def _first_line(error: Exception) -> str:
    said = str(error.args[0] if error.args else error).splitlines()[0]
    return said.partition(" @ ")[0]  # after which webdataset describes the stream


def _same(picture: bytes | None) -> bytes | None:
    return picture
