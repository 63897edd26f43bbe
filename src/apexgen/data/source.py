"""From the settings to a source: what kind it is, is seen from its path and what lies there."""

import os
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from apexgen.config import Data, Origin
from apexgen.data import tables, tars
from apexgen.data.base import Chain, First, Reader, Source
from apexgen.data.files import FolderSource, PromptsSource, ScenesSource, pictures_in
from apexgen.data.hub import PREFIX, open_hub
from apexgen.data.mixture import Mixture
from apexgen.data.skipped import Skipped

__all__ = ["Source", "open_source"]

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def open_source(data: Data, pictures: bool = True, seed: int = 0) -> Source:
    """The source that the settings name; without pictures, theirs are not read and are None.

    What is bad is in the source's `skipped`. The seed decides whose turn it is in a mixture.
    Raises ValueError, one line, for a source that is missing or of no known kind, and for an unknown column.
    """
    name = "data.mixture" if data.mixture else f"data.source = {data.source!r}"
    skipped = Skipped(name, data.bad_limit)
    if not data.mixture:
        return _open(data, skipped, pictures)
    sources = [_open(share, skipped, pictures, f"{number}/") for number, share in enumerate(data.mixture)]
    mixture = Mixture(sources, [share.weight for share in data.mixture], seed)
    return mixture if data.limit is None else First(mixture, data.limit)


def _open(origin: Origin, skipped: Skipped, pictures: bool, within: str = "") -> Source:
    source: Source
    if origin.source == "scenes":
        _refuse_columns(origin)
        source = ScenesSource(origin.limit, skipped, pictures)
    elif origin.source.startswith(PREFIX):
        source = open_hub(origin, skipped, pictures)
    else:
        source = _open_path(origin, skipped, pictures)
    for part in source.parts():
        assert isinstance(part, Reader)
        part.within = within + part.within
    return source if origin.limit is None or origin.source == "scenes" else First(source, origin.limit)


def _open_path(origin: Origin, skipped: Skipped, pictures: bool) -> Source:
    path = Path(origin.source)
    if path.is_dir():
        files = _inside(path)
        if files is None:
            _refuse_columns(origin)
            return FolderSource(path, skipped, pictures)
    elif path.is_file():
        files = [path]
    else:
        files = [Path(name) for name in sorted(glob(origin.source, recursive=True))] if has_magic(origin.source) else []
    if not files:
        raise ValueError(_nothing(path))
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        raise ValueError(f"data.source = {origin.source!r}: files of several kinds; write it with an ending, as *.tar")
    parts = [_open_file(file, origin, skipped, pictures) for file in files]
    damage = [part.damage for part in parts if isinstance(part, tars.TarSource) and part.damage is not None]
    if len(damage) == len(parts):
        raise ValueError(f"{files[0]} can't be read: {damage[0]}")
    for part, folder in zip(parts, _folders(files), strict=True):
        part.within = folder
        if isinstance(part, tables.TableSource):
            part.several = len(parts) > 1
    return parts[0] if len(parts) == 1 else Chain(f"{origin.source}, {len(parts)} files", parts, skipped)


def _open_file(file: Path, origin: Origin, skipped: Skipped, pictures: bool) -> Reader:
    if file.name.endswith(tars.ENDINGS):
        return tars.TarSource(file, origin, skipped, pictures)
    if file.suffix in tables.ENDINGS:
        return tables.TableSource(file, origin, skipped, pictures)
    _refuse_columns(origin)
    return PromptsSource(file, skipped)


def _folders(files: Sequence[Path]) -> list[str]:
    """The folder of each file within the one that holds all, "" or "a/b/": files of one name are told apart."""
    folders = [file.absolute().parent for file in files]
    shared = os.path.commonpath(folders)
    names = [folder.relative_to(shared).as_posix() for folder in folders]
    return ["" if name == "." else f"{name}/" for name in names]


def _inside(folder: Path) -> Sequence[Path] | None:
    """The archives or tables that a folder is made of; None where it is made of pictures."""
    for name in METADATA:
        if (folder / name).is_file():
            return [folder / name]
    pictures = pictures_in(folder)
    if any(file.with_suffix(".txt").is_file() for file in pictures):
        return None
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
    for ending in (*tars.ENDINGS, *tables.ENDINGS):
        if found := [file for file in files if file.name.endswith(ending)]:
            return found
    return None if pictures else []


def _nothing(path: Path) -> str:
    if path.is_dir():
        return f"data.source = {str(path)!r} has no pictures, tables or tars"
    return f'data.source = {str(path)!r}: no such file or folder; or write data.source = "scenes"'


def _kind(file: Path) -> str:
    return next((ending for ending in (*tars.ENDINGS, *tables.ENDINGS) if file.name.endswith(ending)), "prompts")


def _refuse_columns(origin: Origin) -> None:
    """ValueError for settings of columns where there are none."""
    for name in ("picture", "captions", "filter"):
        if getattr(origin, name):
            raise ValueError(f"data.{name}: {origin.source} has no columns; remove it")
