"""Tables: parquet, CSV and JSON files whose rows are records, with pictures in a column or in files beside them."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from apexgen.config import Origin
from apexgen.data.base import Entry, Reader
from apexgen.data.columns import file_fault, find_columns
from apexgen.data.extra import arrow_errors, need_data_extra
from apexgen.data.skipped import Skipped

ENDINGS = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".json")
PICTURES = 64  # read from a parquet file at once


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
        column = self.columns.picture if self.pictures else None
        embedded = column is not None and not _is_text(self.schema.field(column).type)
        paths = [column] if column is not None and not embedded else []
        with arrow_errors(self.file):
            for number, (row, picture) in enumerate(_rows(self.file, [*self.columns.cheap, *paths], column, embedded)):
                if self.columns.admits(row):
                    yield self._entry(number, row, picture)

    def _entry(self, number: int, row: Mapping[str, Any], picture: Callable[[], Any]) -> Entry:
        key, captions = f"{self.file.name}:{number}", self.columns.texts(row)
        path = row.get(self.columns.picture) if self.columns.picture else None
        if not isinstance(path, str):
            return Entry(key, captions, partial(_stored, picture))
        return Entry(path, captions, (self.file.parent / path).read_bytes, file_fault(self.file.parent, path))


class _Ahead:
    """A parquet column of pictures in one group of rows, read a few at once, in the order of the rows."""

    def __init__(self, file: Any, group: int, column: str) -> None:
        self._batches = file.iter_batches(PICTURES, row_groups=[group], columns=[column])
        self._first, self._values = 0, next(self._batches).column(0)

    def __call__(self, row: int) -> Any:
        while row >= self._first + len(self._values):
            self._first += len(self._values)
            self._values = next(self._batches).column(0)
        return self._values[row - self._first].as_py()


def _rows(file: Path, cheap: list[str], picture: str | None, embedded: bool) -> Iterator[tuple[dict, Callable]]:
    """The rows of a file without pictures, and what reads each one's."""
    if file.suffix != ".parquet":
        for batch in _dataset(file).to_batches(columns=cheap):
            yield from ((row, lambda: None) for row in batch.to_pylist())
        return
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            rows = opened.read_row_group(group, columns=cheap).to_pylist()
            ahead: list[_Ahead] = []  # begun when the first picture is asked for

            def read(row: int, group: int = group, ahead: list[_Ahead] = ahead) -> Any:
                if not ahead:
                    ahead.append(_Ahead(opened, group, str(picture)))
                return ahead[0](row)

            yield from ((row, partial(read, place) if embedded else lambda: None) for place, row in enumerate(rows))


def _stored(picture: Callable[[], Any]) -> bytes | None:
    value = picture()
    return value.get("bytes") if isinstance(value, dict) else value


def _schema(file: Path) -> Any:
    if file.suffix != ".parquet":
        return _dataset(file).schema
    import pyarrow.parquet as parquet

    return parquet.read_schema(file)


def _dataset(file: Path) -> Any:
    """A file of text as an Arrow dataset."""
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.dataset as dataset

    if file.suffix == ".json":
        with file.open(encoding="utf-8-sig") as opened:
            return dataset.dataset(pa.Table.from_pylist(json.load(opened)))
    if file.suffix in (".jsonl", ".ndjson"):
        return dataset.dataset(file, format="json")
    parsing = csv.ParseOptions(delimiter="\t" if file.suffix == ".tsv" else ",", newlines_in_values=True)
    return dataset.dataset(file, format=dataset.CsvFileFormat(parsing))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))
