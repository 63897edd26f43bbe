"""Columns to records: which column is the picture, which ones are captions, and which rows are left out."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from apexgen.config import Bounds, Origin

PICTURES = (
    "image_bytes", "image", "picture", "jpg", "jpeg", "png", "webp", "file_name", "image_path", "output_image",
    "filename", "path",
)  # fmt: skip
CAPTIONS = ("text", "caption", "prompt", "input_prompt", "txt", "captions", "prompts")
FAMILIES = ("caption_", "text_", "prompt_")  # several columns of captions, drawn equally often
FOREIGN = "_cn"  # the same captions in another language


@dataclass(frozen=True)
class Columns:
    """The columns of a source that are read."""

    picture: str | None
    captions: Mapping[str, float]  # how often each is drawn
    filter: Mapping[str, Bounds]

    @property
    def cheap(self) -> list[str]:
        """All but the picture."""
        return list(dict.fromkeys([*self.captions, *self.filter]))

    def texts(self, row: Mapping[str, Any]) -> list[tuple[str, float]]:
        """A row's captions, with how often each is drawn; a column may hold a list of them."""
        texts: list[tuple[str, float]] = []
        for column, weight in self.captions.items():
            value = row.get(column)
            several = value if isinstance(value, list) else [] if value is None else [value]
            texts += [(str(text), weight / len(several)) for text in several if text is not None]
        return texts

    def admits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is within all bounds. ValueError where a text is compared with a number."""
        return all(_within(column, row.get(column), bounds) for column, bounds in self.filter.items())


def find_columns(origin: Origin, names: Collection[str], texts: Collection[str]) -> Columns:
    """The columns that the settings name, or that are known by their names.

    names: all columns; texts: those of them that hold text. ValueError for an unknown column, with the nearest one.
    """
    for key, wanted in (("picture", [origin.picture]), ("captions", origin.captions), ("filter", origin.filter)):
        for name in wanted:
            if name is not None and name not in names:
                raise ValueError(_unknown(origin, key, name, names))
    picture = origin.picture or next((name for name in PICTURES if name in names), None)
    captions = dict(origin.captions) or _known_captions([name for name in texts if name != picture])
    if not captions:
        raise ValueError(
            f"{origin.source} has no column known to hold captions; write data.captions = one of: {_list(names)}"
        )
    return Columns(picture, captions, origin.filter)


def _known_captions(texts: Sequence[str]) -> dict[str, float]:
    for name in CAPTIONS:
        if name in texts:
            return {name: 1.0}
    return {name: 1.0 for name in texts if name.startswith(FAMILIES) and not name.endswith(FOREIGN)}


def _unknown(origin: Origin, key: str, name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"its columns: {_list(names)}"
    return f"data.{key}: {origin.source} has no column {name}: {hint}"


def _list(names: Collection[str]) -> str:
    return ", ".join(names) or "none"


def _within(column: str, value: Any, bounds: Bounds) -> bool:
    if value is None:
        return False
    try:
        return (
            (bounds.minimum is None or value >= bounds.minimum)
            and (bounds.maximum is None or value <= bounds.maximum)
            and (bounds.equals is None or value == bounds.equals)
        )
    except TypeError:
        raise ValueError(f"data.filter.{column}: {value!r} can't be compared with a number; write equals") from None


def path_fault(name: str) -> str | None:
    """Why a path in an archive or a table is refused: it must lead to somewhere inside its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        return "its path leads out of the folder"
    return None


def file_fault(folder: Path, name: str) -> str | None:
    """Why a file beside a table can't be read."""
    fault = path_fault(name)
    if fault is None and not (folder / name).resolve().is_relative_to(folder.resolve()):
        return "its path leads out of the folder"
    return fault or (None if (folder / name).is_file() else "there is no such file")
