"""What the readers of archives and tables lean on."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def need_data_extra() -> None:
    """ValueError, one line, where the libraries that read tables, archives and hub data sets are missing."""
    missing = [name for name in ("pyarrow", "webdataset", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f'{missing[0]} is not installed; write: pip install "apexgen[data]"')


@contextmanager
def arrow_errors(file: Path) -> Iterator[None]:
    """Turn Arrow's complaints about a file, which take several lines, into a ValueError of one."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:  # of a damaged page it is an OSError
        if isinstance(error, ValueError) and not isinstance(error, pa.ArrowException):
            raise
        raise ValueError(f"{file} can't be read: {str(error).splitlines()[0]}") from None
