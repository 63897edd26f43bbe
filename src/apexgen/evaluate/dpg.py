"""DPG-Bench: dense prompts, a graph of yes/no questions for each, four pictures of a prompt in one 2x2 grid.

A question counts as answered yes only where all that it depends on is: no cat, so no color of the cat. A crop's score
is the mean of its questions, a picture's that of its crops, and DPG 100 times the mean over pictures.
Hu et al., ELLA, https://arxiv.org/abs/2403.05135; data and protocol: github.com/TencentQQGYLab/ELLA, dpg_bench.

`strict` repeats what the published script does beside that: it leaves out the table's first row, scores categories by
the last crop's answers before dependencies, and drops a picture at which it fails.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from PIL import Image

from apexgen.evaluate.gallery import open_picture

CROPS = 4  # top left, top right, bottom left, bottom right
WHERE = "the folder dpg_bench of github.com/TencentQQGYLab/ELLA (Apache-2.0)"


@dataclass(frozen=True)
class Question:
    """A proposition about a prompt."""

    text: str
    category: str  # such as "entity - whole"; what is before the dash is the broad one
    parents: tuple[int, ...]  # numbers of the propositions it depends on


Graph = dict[int, Question]  # by number, in the table's order
Crop = Mapping[int, bool]  # which questions were answered yes


@dataclass(frozen=True)
class Scores:
    """All figures in [0, 1]."""

    pictures: dict[str, list[float]]  # each picture's crops
    broad: dict[str, float]  # such as "entity"
    detailed: dict[str, float]  # such as "entity - whole"
    dropped: tuple[str, ...] = ()  # pictures that the published script would fail at

    @property
    def overall(self) -> float:
        """The mean over pictures of the mean over crops."""
        return fmean(fmean(crops) for crops in self.pictures.values())

    def told(self) -> dict[str, float]:
        """DPG and the broad categories, in percent."""
        return {"DPG": 100 * self.overall} | {name: 100 * share for name, share in self.broad.items()}


def read_prompts(data: Path) -> dict[str, str]:
    """The prompts of prompts/<item>.txt by item. ValueError, naming what to download, where there are none."""
    files = sorted((data / "prompts").glob("*.txt"))
    if not files:
        raise ValueError(f"{data / 'prompts'} holds no prompts; download {WHERE} and give it with --data")
    return {file.stem: file.read_text(encoding="utf-8").strip() for file in files}


def read_graphs(data: Path, strict: bool = False) -> dict[str, Graph]:
    """The questions of dpg_bench.csv by item. ValueError, one line, for a table that is missing or no such table."""
    table = data / "dpg_bench.csv"
    if not table.is_file():
        raise ValueError(f"{table} is missing; download {WHERE} and give it with --data")
    graphs: dict[str, Graph] = {}
    with table.open(newline="", encoding="utf-8-sig") as opened:
        rows, before = csv.DictReader(opened), None
        for index, row in enumerate(rows):
            if strict and index == 0:
                continue
            try:
                item, number = row["item_id"].strip(), int(row["proposition_id"])
                parents = tuple(int(word) for word in row["dependency"].split(",") if word.strip())
                category = row["tuple"].split("(")[0].strip()
                question = Question(row["question_natural_language"].strip(), category, parents)
            except (KeyError, ValueError, AttributeError):
                raise ValueError(f"{table}, line {rows.line_num}, is no question of DPG-Bench") from None
            if strict and item != before:
                graphs[item] = {}  # rows of an item that comes again replace the earlier ones
            graphs.setdefault(item, {})[number] = question
            before = item
    if not graphs:
        raise ValueError(f"{table} holds no questions; download {WHERE} anew")
    return graphs


def heed_parents(graph: Graph, yes: Crop, strict: bool = False) -> dict[int, bool]:
    """The answers, no where one that they depend on is no, at any distance and in any order of the table.

    strict: in one pass in the table's order; KeyError for a parent that is no question. 0 is no parent.
    Raises KeyError for a question without an answer.
    """
    heeded = {number: yes[number] for number in graph}
    while True:
        changed = False
        for number, question in graph.items():
            parents = [parent for parent in question.parents if parent and (strict or parent in graph)]
            if not all(heeded[parent] for parent in parents) and heeded[number]:
                heeded[number], changed = False, True
        if strict or not changed:
            return heeded


def score(graphs: Mapping[str, Graph], answers: Mapping[str, Sequence[Crop]], strict: bool = False) -> Scores:
    """The scores of pictures by item, from each crop's answers. ValueError where no picture can be scored."""
    pictures: dict[str, list[float]] = {}
    by_category: dict[str, list[float]] = {}
    dropped = []
    for item, crops in answers.items():
        try:
            heeded = [heed_parents(graphs[item], crop, strict) for crop in crops]
        except KeyError:  # an unknown item, a question without an answer, or a parent that is no question
            if not strict:
                raise ValueError(f"item {item}: its answers are not those of the questions of dpg_bench.csv") from None
            dropped.append(item)
            continue
        pictures[item] = [fmean(crop.values()) for crop in heeded]
        for crop in crops[-1:] if strict else heeded:
            for number, question in graphs[item].items():
                by_category.setdefault(question.category, []).append(float(crop[number]))
    if not pictures:
        raise ValueError("no picture could be scored: none belongs to an item of dpg_bench.csv")
    broad: dict[str, list[float]] = {}
    for name in sorted(by_category):
        broad.setdefault(name.split("-")[0].strip(), []).extend(by_category[name])
    return Scores(pictures, _means(broad), _means(by_category), tuple(dropped))


def _means(lists: dict[str, list[float]]) -> dict[str, float]:
    return {name: fmean(values) for name, values in sorted(lists.items())}


def boxes(size: tuple[int, int], count: int = CROPS) -> list[tuple[int, int, int, int]]:
    """The first `count` crops of a 2x2 grid of so many pixels; of a single picture all of it."""
    if count == 1:
        return [(0, 0, *size)]
    width, height = size[0] // 2, size[1] // 2
    corners = [(0, 0), (width, 0), (0, height), (width, height)][:count]
    return [(left, top, left + width, top + height) for left, top in corners]


def grid(files: Sequence[Path]) -> Image.Image:
    """Up to four pictures of one size in a 2x2 grid; a single one as it is. ValueError where the sizes differ."""
    pictures = [open_picture(file) for file in files]
    if len(pictures) == 1:
        return pictures[0]
    width, height = pictures[0].size
    joined = Image.new("RGB", (2 * width, 2 * height))
    for picture, box in zip(pictures, boxes(joined.size, len(pictures)), strict=True):
        if picture.size != (width, height):
            raise ValueError(f"{files[0]} and others of its grid differ in size")
        joined.paste(picture, box[:2])
    return joined


def item_of(file: Path | str) -> str:
    """The item of a picture's file: its name up to the first dot."""
    return Path(file).name.split(".")[0]
