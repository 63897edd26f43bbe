"""Columns to records: which column is the picture, which ones are captions, and which rows are left out."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
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
NOTHING = ("", "null", "none", "nan", "na", "n/a", "#n/a")  # texts that stand for no number, in small letters
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
TRUTH = {"true": True, "false": False}
OUT = "its path leads out of the folder"


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
            texts += [(str(text), weight / len(several)) for text in several if isinstance(text, str | int | float)]
        return texts

    def admits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is within all bounds. ValueError where a text that is no number is compared with one."""
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


def may_be_caption(name: str, value: Any) -> bool:
    """Whether a column of a CSV or JSON file may hold captions, by one value; CSV has numbers in texts as well."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, str) and (name in CAPTIONS or isinstance(_as_number(first), str))


def caption_fault(captions: Sequence[str]) -> str | None:
    """Why a record's captions can't be used."""
    return text_fault(captions) if captions else "it has no caption"


def text_fault(texts: Iterable[str]) -> str | None:
    """Why texts can't be encoded: JSON may hold half a character, which no tokenizer takes and no file."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        return f"it is no UTF-8 text: it holds {error.object[error.start]!a}"
    return None


def _unknown(origin: Origin, key: str, name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"its columns: {_list(names)}"
    return f"data.{key}: {origin.source} has no column {name}: {hint}"


def _list(names: Collection[str]) -> str:
    return ", ".join(names) or "none"


def _within(column: str, value: Any, bounds: Bounds) -> bool:
    if isinstance(value, str) and not isinstance(bounds.equals, str):
        value = _as_number(value)
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


def _as_number(text: str) -> bool | float | str | None:
    """The number, truth or nothing that a text stands for, as all of CSV are texts; else the text."""
    word = text.strip().lower()
    if word in NOTHING:
        return None
    if NUMBER.fullmatch(word):
        return int(word) if word.lstrip("+-").isdigit() else float(word)
    return TRUTH.get(word, text)


def path_fault(name: str) -> str | None:
    """Why a path in an archive or a table is refused: it must lead to somewhere inside its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        return OUT
    return None


def file_fault(folder: Path, name: str) -> str | None:
    """Why a file beside a table can't be read."""
    fault = path_fault(name)
    if fault is not None:
        return fault
    try:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()):
            return OUT
        return None if file.is_file() else "there is no such file"
    except (OSError, RuntimeError, ValueError):  # a name that no file can have, or links in a circle
        return "there is no such file"
