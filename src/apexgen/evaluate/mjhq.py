"""MJHQ-30K: 30,000 prompts of ten categories and a picture of each, which FID, KID and CLIP score are taken on.

Li et al., Playground v2.5, https://arxiv.org/abs/2402.17245. The data set is not shipped: `meta_data.json` and its
unpacked pictures, `mjhq30k_imgs`, are put into one folder.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from apexgen.evaluate.collection import Collection
from apexgen.evaluate.gallery import Job

META, PICTURES = "meta_data.json", "mjhq30k_imgs"
SOURCE = "playgroundai/MJHQ-30K"
PLAIN = re.compile(r"[\w-]+")  # what a category and an id may be: they become paths


@dataclass(frozen=True)
class Entry:
    """A prompt of the data set."""

    id: str
    prompt: str
    category: str


def read_mjhq(folder: Path) -> list[Entry]:
    """The entries in the file's order. ValueError, one line, for a folder without them or a file that is broken."""
    file = folder / META
    if not file.is_file():
        raise ValueError(
            f"--data {folder} has no {META}; download {META} and {PICTURES}.zip of {SOURCE}, unzip it there"
        )
    try:
        table = json.loads(file.read_text())
        entries = [Entry(name, told["prompt"], told["category"]) for name, told in table.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is broken: {type(error).__name__} {error}") from None
    for entry in entries:
        for value in (entry.id, entry.category):
            if not isinstance(value, str) or not PLAIN.fullmatch(value):
                raise ValueError(f"{file} is broken: {value!r} is no plain name")
        if not isinstance(entry.prompt, str):
            raise ValueError(f"{file} is broken: the prompt of {entry.id} is no text")
    if not entries:
        raise ValueError(f"{file} is empty; download it again from {SOURCE}")
    return entries


def jobs(entries: list[Entry], seed: int, limit: int | None = None) -> list[Job]:
    """A picture for each entry, or the first `limit` of each category, at CATEGORY/ID.png; entry i has seed + i."""
    seen: Counter[str] = Counter()
    chosen = []
    for index, entry in enumerate(entries):
        seen[entry.category] += 1
        if limit is None or seen[entry.category] <= limit:
            chosen.append(Job(f"{entry.category}/{entry.id}.png", entry.prompt, seed + index))
    return chosen


def drawn_pictures(folder: Path, chosen: list[Job]) -> Collection:
    """The pictures of jobs, in the order of their names, whatever order they were drawn in."""
    names = sorted(job.path for job in chosen)
    return Collection(folder, tuple(names), tuple(name.partition("/")[0] for name in names))


def reference_pictures(folder: Path, entries: list[Entry]) -> Collection:
    """The data set's pictures. ValueError, one line, that counts those that are missing."""
    ordered = sorted(entries, key=lambda entry: (entry.category, entry.id))
    names = tuple(f"{PICTURES}/{entry.category}/{entry.id}.jpg" for entry in ordered)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing):,} of {len(names):,} pictures, such as {missing[0]}; "
            f"unzip {PICTURES}.zip of {SOURCE} there"
        )
    return Collection(folder, names, tuple(entry.category for entry in ordered))
