"""WISE: prompts that take knowledge of the world. Two protocols, whose figures are never compared.

legacy: three marks from 0 to 2; a picture's score is (0.7 consistency + 0.2 realism + 0.1 aesthetic quality) / 2.
Verified: about 200 prompts changed, one mark, 0 or 1. The overall is a weighted mean of six categories.
Niu et al., https://arxiv.org/abs/2503.07265; data and protocols: github.com/PKU-YuanGroup/WISE, which has no licence:
its prompts and its judge's instruction are read from your copy.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from apexgen.evaluate.judge import Form

FILES = ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
CATEGORIES = ("cultural", "time", "space", "biology", "physics", "chemistry")
FILE_OF = {"cultural": 0, "time": 1, "space": 1, "biology": 2, "physics": 2, "chemistry": 2}  # of FILES
MARKS = ("consistency", "realism", "aesthetic_quality")


@dataclass(frozen=True)
class Protocol:
    """What tells one WISE from the other."""

    name: str
    ending: str  # of the data's files
    folders: tuple[str, ...]  # where they are in a copy of the repository
    last: tuple[int, ...]  # prompt_id of each category's last prompt
    weights: tuple[float, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]  # of the judge's answer
    instruction: str  # ours
    thinking: bool  # whether the published judge may think before it answers
    merged: str = ""  # a file of all prompts, where the others are not there

    def category(self, prompt_id: int) -> str:
        """The category of a prompt; ValueError where there is none."""
        for name, last in zip(CATEGORIES, self.last, strict=True):
            if 1 <= prompt_id <= last:
                return name
        raise ValueError(f"prompt_id {prompt_id} is none of {self.name}'s 1 to {self.last[-1]}")

    def score(self, marks: Sequence[int]) -> float:
        """A picture's score in [0, 1]."""
        if len(marks) == 1:
            return float(marks[0])
        consistency, realism, beauty = marks
        return (0.7 * consistency + 0.2 * realism + 0.1 * beauty) / 2

    def form(self, guarded: bool) -> Form:
        """How the judge must answer."""
        return Form(self.lines, guarded)


LEGACY = Protocol(
    "WISE legacy",
    ".json",
    ("WISE_legacy/data", "data", "."),
    (400, 567, 700, 800, 900, 1000),
    (0.4, 0.167, 0.133, 0.1, 0.1, 0.1),
    tuple((label, ("0", "1", "2")) for label in ("Consistency", "Realism", "Aesthetic Quality")),
    "A model was asked to draw: {Prompt}\nWhat a right picture shows: {Explanation}\n\nMark its picture, strictly; in "
    "doubt take the lower mark.\nConsistency: 0 where it misses what matters, 1 where it shows a part, 2 where it shows"
    " all of it.\nRealism: 0 where it is impossible or plainly artificial, 1 with small faults, 2 like a photograph."
    "\nAesthetic Quality: 0 where it is poor, 1 where it is sound, 2 where it is outstanding.",
    thinking=True,
)
VERIFIED = Protocol(
    "WISE Verified",
    "_verified.json",
    ("data_verified", "."),
    (400, 520, 640, 760, 880, 1000),
    (0.4, 0.12, 0.12, 0.12, 0.12, 0.12),
    (("Score", ("0", "1")),),
    "A model was asked to draw: {Prompt}\nWhat a right picture shows: {Explanation}\n\nScore its picture: 1 where it "
    "shows what the explanation says, 0 where it does not, or you doubt it. Style and beauty do not matter.",
    thinking=False,
    merged="merge.json",
)
PROTOCOLS = {"legacy": LEGACY, "verified": VERIFIED}


@dataclass(frozen=True)
class Prompt:
    """A record of the data."""

    id: int
    text: str
    explanation: str
    subcategory: str
    file: str  # which of FILES it is in


def read_prompts(data: Path, protocol: Protocol) -> list[Prompt]:
    """The prompts of the files that a copy of the repository, or a folder of it, has, by id.

    ValueError where there is none, naming what to download, or a record is none.
    """
    prompts: dict[int, Prompt] = {}
    files = [file for name in FILES if (file := _find(data, protocol, f"{name}{protocol.ending}"))]
    if not files and protocol.merged and (file := _find(data, protocol, protocol.merged)):
        files = [file]
    for file in files:
        prompts |= {prompt.id: prompt for prompt in _read_prompts(file, protocol)}
    if not prompts:
        raise ValueError(
            f"{data} holds no {FILES[0]}{protocol.ending}; download github.com/PKU-YuanGroup/WISE and give its folder "
            f"with --data ({protocol.name} is in {protocol.folders[0]})"
        )
    return [prompts[id] for id in sorted(prompts)]


def _find(data: Path, protocol: Protocol, name: str) -> Path | None:
    places = (data / folder / name for folder in protocol.folders)
    return next((place for place in places if place.is_file()), None)


def _read_prompts(file: Path, protocol: Protocol) -> list[Prompt]:
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
        named = ("Prompt", "Explanation", "Subcategory")
        told = [(int(record["prompt_id"]), *(str(record[key]) for key in named)) for record in records]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no file of WISE's prompts ({type(error).__name__}: {error})") from None
    usual = [FILES[FILE_OF[protocol.category(prompt_id)]] for prompt_id, *_ in told]
    own = file.name.removesuffix(protocol.ending)  # of a merged file it is none
    return [Prompt(*one, file=own if own in FILES else name) for one, name in zip(told, usual, strict=True)]


def score(protocol: Protocol, marks: Mapping[int, Sequence[int] | None]) -> dict[str, float]:
    """The categories' means and, where all six are there, "overall", in [0, 1]; what has no marks scores 0."""
    by_category: dict[str, list[float]] = {}
    for prompt_id, own in marks.items():
        by_category.setdefault(protocol.category(prompt_id), []).append(0.0 if own is None else protocol.score(own))
    means = {name: fmean(by_category[name]) for name in CATEGORIES if name in by_category}
    if len(means) < len(CATEGORIES):
        return means
    weighted = (weight * mean for weight, mean in zip(protocol.weights, means.values(), strict=True))
    return means | {"overall": sum(weighted)}
