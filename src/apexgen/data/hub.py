"""A data set of the Hugging Face hub, streamed: downloaded as it is read, since the user wrote "hub:"."""

import os
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from apexgen.config import Origin
from apexgen.data.base import Chain, Entry, Reader, Source, Unreadable
from apexgen.data.columns import Columns, find_columns
from apexgen.data.extra import need_data_extra
from apexgen.data.files import read_picture
from apexgen.data.skipped import Skipped
from apexgen.data.tars import PEEKED

PREFIX = "hub:"
REMOTE = ("hf", "https", "http")
PACKED = ("zip", "gzip", "bz2", "xz", "lz4", "zstd")  # before what is packed: zip://0.png::hf://datasets/...


def open_hub(origin: Origin, skipped: Skipped, pictures: bool) -> Source:
    """A split of "hub:owner/name@revision", or of a local folder that `datasets` can read, its shards the parts.

    ValueError, one line, where it can't be opened. No code of the data set is run.
    """
    need_data_extra()
    opened, first = _load(origin)
    known = opened.column_names or list(first)
    texts = [name for name in known if _may_be_text(opened, name)]
    columns = find_columns(origin, known, texts)
    shards = [opened.shard(opened.num_shards, index) for index in range(opened.num_shards)]
    what = f"{origin.source}, streamed"
    name = _name(origin.source)[0]
    folder = name if Path(name).is_dir() else None
    parts = [HubShard(f"shard {n}", shard, columns, skipped, pictures, folder) for n, shard in enumerate(shards)]
    return Chain(what, parts, skipped)


def _load(origin: Origin) -> tuple[Any, dict[str, Any]]:
    """The data set, streamed, and its first row."""
    import datasets

    name, revision = _name(origin.source)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would tell of every local folder
    try:
        opened = datasets.load_dataset(name, origin.subset, split=origin.split, streaming=True, revision=revision)
        opened = opened.decode(False)
        return opened, next(iter(opened.take(1)), {})
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        said = " ".join(str(error).split()).partition(" Example of usage")[0]
        given = "data.subset not given" if origin.subset is None else f'data.subset = "{origin.subset}"'
        raise ValueError(f'{origin.source} ({given}, data.split = "{origin.split}") can\'t be opened: {said}') from None


def _name(source: str) -> tuple[str, str | None]:
    """The name, or a local folder, and the revision."""
    name = source.removeprefix(PREFIX)
    with_revision = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)@(.+)", name)
    if with_revision is None or Path(name).exists():
        return name, None
    return with_revision[1], with_revision[2]


class HubShard(Reader):
    """One of the files that a data set is made of."""

    def __init__(
        self, name: str, rows: Any, columns: Columns, skipped: Skipped, pictures: bool, folder: str | None
    ) -> None:
        """folder: where the data set lies, if on this machine."""
        super().__init__(name, skipped)
        self.folder, self.columns, self.pictures = folder, columns, pictures and columns.picture is not None
        wanted = [*columns.cheap, *([columns.picture] if self.pictures else [])]
        self.rows = rows.select_columns(wanted)

    def found(self) -> Iterator[Entry]:
        for number, row in enumerate(self.rows):
            if self.columns.admits(row):
                picture = row[self.columns.picture] if self.pictures else None
                yield Entry(f"{self.name}:{number}", self.columns.texts(row), partial(_stored, picture, self.folder))


def _stored(picture: Any, folder: str | None) -> bytes | None:
    """The bytes of a column of pictures, which may hold a file's path instead."""
    if isinstance(picture, dict):
        stored, path = picture.get("bytes"), picture.get("path")
        return stored if stored is not None or path is None else _fetch(path, folder)
    return picture if isinstance(picture, bytes) else None


def _fetch(path: str, folder: str | None) -> bytes:
    """The picture at a path that anyone may have written: of this machine's files, those of the folder alone."""
    from datasets.utils.file_utils import xopen

    *packed, file = path.split("::")
    scheme, remote, _ = file.partition("://")
    # By its name: in the hub's cache the files of a folder are links.
    inside = folder is not None and Path(os.path.abspath(file)).is_relative_to(os.path.abspath(folder))
    known = scheme in REMOTE if remote else inside
    if not known or any(hop.partition("://")[0] not in PACKED for hop in packed):
        raise Unreadable("its path leads to no file of the data set")
    if not remote and not packed:
        return read_picture(Path(file))
    try:
        with xopen(path, "rb") as opened:
            return bytes(opened.read())
    except Exception as error:  # whatever it is: archives and networks have errors of their own
        raise Unreadable(f"the picture can't be read: {' '.join(str(error).split())}") from None


def _may_be_text(opened: Any, name: str) -> bool:
    """Whether a column holds text, by the data set's features or its first rows."""
    if opened.features is not None:
        return "string" in str(opened.features[name])
    return any(isinstance(row[name], str) for row in islice(opened, PEEKED))
