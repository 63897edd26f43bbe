"""Tables: parquet, CSV and JSON files whose rows are records, with pictures in a column or in files beside them."""

import csv
import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from apexgen.config import Origin
from apexgen.data.base import Entry, Reader, Unreadable
from apexgen.data.columns import Columns, file_fault, find_columns, may_be_caption
from apexgen.data.extra import arrow_errors, need_data_extra
from apexgen.data.files import nothing, read_picture
from apexgen.data.skipped import Skipped

ENDINGS = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".json")
PICTURES = 64  # read from a parquet file at once
PEEKED = 256  # rows at the beginning of a CSV or JSON file that tell which columns there are
LONGEST = 1 << 24  # characters of a cell of CSV; a quote that is never closed ends there
NO_TEXT = "it is no UTF-8 text"

Load = Callable[[], bytes | None]
Row = tuple[dict[str, Any], str | None]  # by column, and why it can't be read


class TableSource(Reader):
    """The rows of one file; paths of pictures are relative to its folder."""

    several = False  # whether it is one of several tables, which may name the same pictures

    def __init__(self, file: Path, origin: Origin, skipped: Skipped, pictures: bool) -> None:
        need_data_extra()
        super().__init__(f"{file}, a table", skipped)
        self.file, self.pictures = file, pictures
        with arrow_errors(file):
            if _is_parquet(file):
                self.columns, self._paths = _parquet_columns(file, origin)
            else:
                self.columns, self._paths = _text_columns(file, origin), True

    def length(self) -> int | None:
        if not _is_parquet(self.file) or self.columns.filter:
            return None
        import pyarrow.parquet as parquet

        return int(parquet.read_metadata(self.file).num_rows)

    def found(self) -> Iterator[Entry]:
        column = self.columns.picture
        cheap = list(dict.fromkeys([*self.columns.cheap, *([column] if column is not None and self._paths else [])]))
        embedded = column if self.pictures and not self._paths else None
        with arrow_errors(self.file):
            for number, ((row, fault), load) in enumerate(_rows(self.file, cheap, embedded)):
                place = f"{self.file.name}:{number}"
                try:
                    admitted = fault is None and self.columns.admits(row)
                except ValueError as error:
                    if _is_parquet(self.file):  # whose columns have types: it is all rows or none
                        raise
                    fault = str(error)
                if fault is not None:
                    yield Entry(place, [], nothing, fault)
                elif admitted:
                    yield self._entry(place, row, load)

    def _entry(self, place: str, row: dict[str, Any], load: Load) -> Entry:
        captions, column, folder = self.columns.texts(row), self.columns.picture, self.file.parent
        path = row.get(column) if column is not None and self._paths else None
        if path is None:
            return Entry(place, captions, load)
        if not isinstance(path, str):
            return Entry(place, captions, nothing, f"its {column} is no path" if self.pictures else None)
        key = f"{self.file.name}/{path}" if self.several else path
        if not self.pictures:
            return Entry(key, captions, nothing)
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


def _rows(file: Path, cheap: list[str], picture: str | None) -> Iterator[tuple[Row, Load]]:
    """The rows of a file without their pictures, and what reads each one's."""
    if not _is_parquet(file):
        yield from ((row, nothing) for row in _text_rows(file))
        return
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            rows = _as_rows(opened.read_row_group(group, columns=cheap))
            if picture is None:
                yield from ((row, nothing) for row in rows)
            else:
                ahead = _Ahead(file, group, picture)
                yield from ((row, partial(ahead, place)) for place, row in enumerate(rows))


def _as_rows(table: Any) -> list[Row]:
    """The rows of an Arrow table, which doesn't check that its texts are UTF-8."""
    try:
        return [(row, None) for row in table.to_pylist()]
    except UnicodeDecodeError:
        half = len(table) // 2
        return _as_rows(table.slice(0, half)) + _as_rows(table.slice(half)) if half else [({}, NO_TEXT)]


def _text_rows(file: Path) -> Iterator[Row]:
    """The rows of a CSV or JSON file, one after another: what is in one says nothing about the next."""
    if file.suffix == ".json":
        return map(_object, _list(file))
    return _lines(file) if file.suffix in (".jsonl", ".ndjson") else _cells(file)


def _lines(file: Path) -> Iterator[Row]:
    """The rows of a file of JSON objects, one a line; blank ones are passed over."""
    with file.open("rb") as lines:
        for line in map(bytes.rstrip, lines):
            if line:
                yield _parsed(line)


def _parsed(line: bytes) -> Row:
    try:
        return _object(json.loads(line.removeprefix(BOM_UTF8).decode()))
    except UnicodeDecodeError:
        return {}, NO_TEXT
    except json.JSONDecodeError as error:
        return {}, f"it is no JSON: {error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        return {}, f"it can't be read: {error}"


def _object(row: Any) -> Row:
    return (row, None) if isinstance(row, dict) else ({}, "it is no JSON object")


def _list(file: Path) -> list[Any]:
    """The rows of a JSON file, which is one list of objects."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{file} can't be read: {NO_TEXT}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} can't be read: {error}") from None
    if not isinstance(rows, list):
        raise ValueError(f"{file} can't be read: it is no list of objects")
    return rows


def _cells(file: Path) -> Iterator[Row]:
    """The rows of a CSV file, all of texts; an empty cell is no value."""
    names: list[str] = []
    for cells, fault in _split(file):
        if not names and fault is not None:
            raise ValueError(f"{file} can't be read: {fault}")
        if not names:
            names = cells
        elif fault is None and len(cells) != len(names):
            yield {}, f"it has {len(cells)} cells, and the first line {len(names)}"
        else:
            yield {name: cell or None for name, cell in zip(names, cells, strict=False)}, fault


def _split(file: Path) -> Iterator[tuple[list[str], str | None]]:
    """The cells of each line of a CSV file, or none and the reason; blank lines are passed over."""
    csv.field_size_limit(LONGEST)  # of the whole process; it is 131,072 otherwise
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
        while True:
            try:
                cells = next(rows)
                "".join(cells).encode()
            except StopIteration:
                return
            except UnicodeEncodeError:
                yield [], NO_TEXT
            except csv.Error as error:
                yield [], f"it is no CSV: {error}"
            else:
                if cells:
                    yield cells, None


def _is_parquet(file: Path) -> bool:
    return file.suffix == ".parquet"


def _parquet_columns(file: Path, origin: Origin) -> tuple[Columns, bool]:
    """Which columns are read, and whether the picture's holds paths."""
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(file)
    texts = [field.name for field in schema if _is_text(field.type)]
    columns = find_columns(origin, schema.names, texts)
    return columns, columns.picture in texts


def _text_columns(file: Path, origin: Origin) -> Columns:
    """Which columns are read, by the first rows; where those don't show them, by all."""
    try:
        return find_columns(origin, *_names(file, PEEKED))
    except ValueError:
        return find_columns(origin, *_names(file, None))


def _names(file: Path, most: int | None) -> tuple[list[str], list[str]]:
    """The columns that so many rows have, and those of them that may hold captions. ValueError for none."""
    names: dict[str, bool] = {}  # and whether it may hold captions
    faults: list[str] = []
    for row, fault in islice(_text_rows(file), most):
        faults += [] if fault is None or faults else [fault]
        for name, value in row.items():
            names[name] = names.get(name, False) or may_be_caption(name, value)
    if not names:
        raise ValueError(f"{file} can't be read: {faults[0] if faults else 'it has no rows'}")
    return list(names), [name for name, text in names.items() if text]


def _is_text(kind: Any) -> bool:
    """Whether an Arrow column holds texts, or lists of them."""
    import pyarrow.types as types

    if not types.is_dictionary(kind):
        kind = getattr(kind, "value_type", kind)  # of a list
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
