"""WebDataset tars: files of one name and several endings are a record."""

import json
import tarfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from apexgen.config import Origin
from apexgen.data.base import Entry, Reader
from apexgen.data.columns import find_columns, path_fault
from apexgen.data.extra import need_data_extra
from apexgen.data.files import PICTURE_ENDINGS, caption_lines
from apexgen.data.skipped import Skipped

ENDINGS = (".tar", ".tar.gz", ".tgz")
PEEKED = 16  # records at the beginning that tell which columns there are


class TarSource(Reader):
    """The records of one tar: a picture, and captions in .txt, one a line, or in the keys of .json."""

    def __init__(self, file: Path, origin: Origin, skipped: Skipped, pictures: bool) -> None:
        need_data_extra()
        super().__init__(f"{file}, a WebDataset tar", skipped)
        self.file, self.pictures = file, pictures
        names: dict[str, bool] = {}  # and whether it is text
        for sample in islice(self._samples(noting=False), PEEKED):
            row, _ = _row(sample)
            names |= {name: isinstance(value, str | list) for name, value in row.items()}
            names |= {name: False for name in sample if f".{name}" in PICTURE_ENDINGS}
        self.columns = find_columns(origin, names, [name for name, text in names.items() if text])

    def found(self) -> Iterator[Entry]:
        for sample in self._samples():
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

    def _samples(self, noting: bool = True) -> Iterator[dict[str, Any]]:
        """What the tar holds, undecoded. A tar that is cut short gives what comes before the cut."""
        import webdataset

        def tell(error: Exception) -> bool:
            if not isinstance(error, tarfile.TarError | EOFError | OSError | ValueError):
                raise error
            if noting:
                self.skipped.count(f"{self.within}{self.name}, its end", 1)
                self.skipped.add(self.within + self.file.name, _first_line(error))
            return True

        dataset = webdataset.WebDataset(
            [f"file:{self.file.absolute()}"], shardshuffle=False, handler=tell, empty_check=False, nodesplitter=None
        )
        yield from dataset


def _row(sample: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The texts of a record and the keys of its .json, and why they can't be read."""
    row: dict[str, Any] = {}
    try:
        if "txt" in sample:
            row["txt"] = [text for text, _ in caption_lines(sample["txt"])]
        if "json" in sample:
            row |= json.loads(sample["json"])
    except (ValueError, TypeError) as error:
        return row, f"its text can't be read: {str(error).splitlines()[0]}"
    return row, None


def _first_line(error: Exception) -> str:
    return str(error.args[0] if error.args else error).splitlines()[0]


def _same(picture: bytes | None) -> bytes | None:
    return picture
