"""Tables: parquet, CSV and JSON files whose rows are records, with pictures in a column or in files beside them."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from apexgen.config import Origin
from apexgen.data.base import Entry, Reader, Unreadable
from apexgen.data.columns import file_fault, find_columns
from apexgen.data.extra import arrow_errors, need_data_extra
from apexgen.data.files import nothing, read_picture
from apexgen.data.skipped import Skipped

ENDINGS = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".json")
PICTURES = 64  # read from a parquet file at once

Load = Callable[[], bytes | None]


class TableSource(Reader):
    """The rows of one file; paths of pictures are relative to its folder."""

    def __init__(self, file: Path, origin: Origin, skipped: Skipped, pictures: bool) -> None:
        need_data_extra()
        super().__init__(f"{file}, a table", skipped)
        self.file, self.pictures = file, pictures
        with arrow_errors(file):
            self.schema = _schema(file)
        texts = [field.name for field in self.schema if _is_text(field.type)]
        self.columns = find_columns(origin, self.schema.names, texts)

    def length(self) -> int | None:
        if self.file.suffix != ".parquet" or self.columns.filter:
            return None
        import pyarrow.parquet as parquet

        return int(parquet.read_metadata(self.file).num_rows)

    def found(self) -> Iterator[Entry]:
        column = self.columns.picture
        has_paths = column is not None and _is_text(self.schema.field(column).type)
        cheap = [*self.columns.cheap, *([column] if has_paths and column not in self.columns.cheap else [])]
        embedded = column if self.pictures and not has_paths else None
        with arrow_errors(self.file):
            for number, (row, load) in enumerate(_rows(self.file, cheap, embedded)):
                if self.columns.admits(row):
                    path = row[column] if has_paths else None
                    yield self._entry(f"{self.file.name}:{number}" if path is None else path, row, path, load)

    def _entry(self, key: str, row: dict[str, Any], path: str | None, load: Load) -> Entry:
        captions, folder = self.columns.texts(row), self.file.parent
        if path is None or not self.pictures:
            return Entry(key, captions, load)
        return Entry(key, captions, partial(read_picture, folder / path), file_fault(folder, path))


class _Ahead:
    """A parquet column of pictures in one group of rows, read a few at once, in the order of the rows."""

    def __init__(self, file: Path, group: int, column: str) -> None:
        self._place = file, group, column
        self._batches: Iterator[Any] | None = None  # the file is opened when the first picture is asked for
        self._first, self._values = 0, ()
        self._damage = ""  # why nothing more of the group can be read

    def __call__(self, row: int) -> bytes | None:
        if self._batches is None:
            self._batches = self._read()
        while row >= self._first + len(self._values):
            values = self._following(self._batches)
            self._first, self._values = self._first + len(self._values), values
        value = self._values[row - self._first].as_py()
        return value.get("bytes") if isinstance(value, dict) else value

    def _following(self, batches: Iterator[Any]) -> Any:
        """The next few pictures; Unreadable from a damaged place on, to the end of the group."""
        if not self._damage:
            try:
                with arrow_errors(self._place[0]):
                    return next(batches)
            except ValueError as error:
                self._damage = str(error)
        raise Unreadable(self._damage)

    def _read(self) -> Iterator[Any]:
        import pyarrow.parquet as parquet

        file, group, column = self._place
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(PICTURES, row_groups=[group], columns=[column]):
                yield batch.column(0)


def _rows(file: Path, cheap: list[str], picture: str | None) -> Iterator[tuple[dict[str, Any], Load]]:
    """The rows of a file without their pictures, and what reads each one's."""
    if file.suffix != ".parquet":
        for batch in _open_text(file):
            yield from ((row, nothing) for row in batch.select(cheap).to_pylist())
        return
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            rows = opened.read_row_group(group, columns=cheap).to_pylist()
            if picture is None:
                yield from ((row, nothing) for row in rows)
            else:
                ahead = _Ahead(file, group, picture)
                yield from ((row, partial(ahead, place)) for place, row in enumerate(rows))


def _schema(file: Path) -> Any:
    if file.suffix != ".parquet":
        return _open_text(file).schema
    import pyarrow.parquet as parquet

    return parquet.read_schema(file)


def _open_text(file: Path) -> Any:
    """A reader of batches of a CSV or JSON file's rows, with their schema."""
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.json as lines

    if file.suffix == ".json":
        return pa.Table.from_pylist(_objects(file)).to_reader()
    if file.suffix in (".jsonl", ".ndjson"):
        return lines.open_json(file)
    delimiter = "\t" if file.suffix == ".tsv" else ","
    return csv.open_csv(file, parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True))


def _objects(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSON file, which is one list of objects."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} can't be read: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file} can't be read: it is no list of objects")
    return rows


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))
