"""DPG-Bench's official result files, written and read: NAME.txt with scores, NAME_detail.txt with every answer."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from apexgen.evaluate.dpg import Crop, Graph, Scores, item_of
from apexgen.files import write_whole

DETAIL = re.compile(r"(?P<path>.*?), (?P<box>\(\d+, \d+, \d+, \d+\)), (?P<said>.*,.*)")  # question, answer
TOTAL, BROAD, DETAILED = "DPG-Bench score", "L1 category scores", "L2 category scores"
Box = tuple[int, int, int, int]


def detail_of(file: Path) -> Path:
    """Where the answers of a result file are."""
    return file.with_name(f"{file.name.removesuffix('.txt')}_detail.txt")


def write_scores(file: Path, model: str, pictures: Path, scores: Scores) -> None:
    """Write a line a picture (path, crops, mean) and the summary, as the published script does."""
    lines = [
        ", ".join([str(pictures / f"{item}.png"), *map(str, crops), str(fmean(crops))])
        for item, crops in scores.pictures.items()
    ]
    lines += [f"Model: {model}", f"{BROAD}:", *(f"\t{name}: {100 * share}" for name, share in scores.broad.items())]
    lines += [f"{DETAILED}:", *(f"\t{name}: {100 * share}" for name, share in scores.detailed.items())]
    lines += [f"Image path: {pictures}", f"Save results to: {file}", f"{TOTAL}: {100 * scores.overall}"]
    write_whole(file, ("\n".join(lines) + "\n").encode())


def read_scores(file: Path) -> Scores:
    """The scores of a result file; ValueError for one that is none, or whose total is not that of its pictures."""
    pictures: dict[str, list[float]] = {}
    shares: dict[str, dict[str, float]] = {BROAD: {}, DETAILED: {}}
    section, total = "", None
    for line in _lines(file):
        name, _, rest = line.rpartition(": ")
        scored = re.fullmatch(r"(?P<path>.*?)(?P<scores>(?:, \d(?:\.\d+)?(?:e-\d+)?){2,})", line)
        if line.rstrip(":") in shares:
            section = line.rstrip(":")
        elif line.startswith("\t") and section:
            shares[section][name.strip()] = float(rest) / 100
        elif name == TOTAL:
            total = float(rest) / 100
        elif scored:
            *crops, _mean = map(float, scored["scores"].removeprefix(", ").split(", "))
            pictures[item_of(scored["path"])] = crops
    scores = Scores(pictures, shares[BROAD], shares[DETAILED])
    if not pictures or total is None:
        raise ValueError(f"{file} is no result of DPG-Bench: it has no lines of scores, or no {TOTAL!r}")
    if abs(scores.overall - total) > 1e-6:
        raise ValueError(f"{file}: its {TOTAL} is {100 * total:g}, and that of its pictures {100 * scores.overall:g}")
    return scores


def write_detail(
    file: Path,
    pictures: Path,
    graphs: Mapping[str, Graph],
    answers: Mapping[str, Sequence[Mapping[int, str]]],
    boxes: Mapping[str, Sequence[Box]],
) -> None:
    """Write every answer: path, box, question, answer."""
    lines = [
        f"{pictures / f'{item}.png'}, {tuple(box)}, {graphs[item][number].text}, {answer}"
        for item, crops in answers.items()
        for box, crop in zip(boxes[item], crops, strict=True)
        for number, answer in crop.items()
    ]
    write_whole(file, ("\n".join(lines) + "\n").encode())


def read_detail(file: Path, graphs: Mapping[str, Graph], strict: bool = False) -> tuple[dict[str, list[Crop]], int]:
    """Each crop's answers by item, and how many are neither yes nor no, which count as no.

    Questions are found by their text, in their order where a text comes twice; an answer may have commas of its own.
    strict: nothing but "yes", letter by letter, is one. ValueError for other files.
    """
    said: dict[str, dict[str, list[str]]] = {}
    for number, line in enumerate(_lines(file), 1):
        match = DETAIL.fullmatch(line)
        if match is None:
            raise ValueError(f"{file}, line {number}, is no answer: path, (box), question, answer")
        said.setdefault(item_of(match["path"]), {}).setdefault(match["box"], []).append(match["said"])
    told = {item: [_numbered(graphs.get(item, {}), crop) for crop in crops.values()] for item, crops in said.items()}
    words = [word for crops in told.values() for crop in crops for word in crop.values()]
    answers: dict[str, list[Crop]] = {
        item: [{n: (word if strict else word.lower()) == "yes" for n, word in crop.items()} for crop in crops]
        for item, crops in told.items()
    }
    return answers, sum(word.lower() not in ("yes", "no") for word in words)


def _numbered(graph: Graph, said: Sequence[str]) -> dict[int, str]:
    """The answer to each question of a crop's lines, "question, answer"."""
    longest = sorted({question.text for question in graph.values()}, key=len, reverse=True)
    by_question: dict[str, list[str]] = {text: [] for text in longest}
    for line in said:
        for text in longest:  # one question may begin with another
            rest = line.strip().removeprefix(text).lstrip()
            if line.strip().startswith(text) and rest.startswith(","):
                by_question[text].append(rest[1:].strip())
                break
    found = {}
    for number, question in graph.items():
        if by_question[question.text]:
            found[number] = by_question[question.text].pop(0)
    return found


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise ValueError(f"{file}: no such file; name a result of DPG-Bench, .txt")
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
