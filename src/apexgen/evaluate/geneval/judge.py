"""GenEval from pictures to its result file, line by line, so that a stopped judge goes on; and from that file to a
Result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from PIL import ImageOps
from rich.console import Console

from apexgen.evaluate.gallery import claim, digest_picture, of_rank, of_ranks, open_picture, progress_bar
from apexgen.evaluate.geneval.colors import ColorJudge
from apexgen.evaluate.geneval.detect import Detector, Selection
from apexgen.evaluate.geneval.records import parse_record
from apexgen.files import alone, write_whole
from apexgen.parallel import take_place
from apexgen.rules import Record, faults, prompts_solved, standard_errors, summarize

Line = dict[str, Any]  # of the official result file
RESULTS = "results.jsonl"  # the official file
LOOKS = "looks.jsonl"  # beside it: the digests of a line and of the picture that it is about
KEYS = {"filename": str, "tag": str, "prompt": str, "correct": bool, "reason": str, "metadata": str, "details": str}


@dataclass(frozen=True)
class Judge:
    """A detector, a judge of colors, and the detections that count."""

    detector: Detector
    color: ColorJudge
    selection: Selection

    @property
    def name(self) -> str:
        """Both judges in full."""
        return f"{self.detector.name}; colors: {self.color.name}"

    def look(self, file: Path, record: Record) -> Line:
        """One line of the official result file. ValueError where the file is no picture."""
        picture = ImageOps.exif_transpose(open_picture(file))
        things = [*record.get("include", []), *record.get("exclude", [])]
        wanted = list(dict.fromkeys(thing["class"] for thing in things))
        found = self.detector.detect(picture, wanted, self.selection.least(record["tag"]))
        kept = self.selection.select(found, record["tag"])
        wrong = faults(kept, record, lambda name, group: self.color.colors(picture, name, group))
        details = {name: [[*thing.box, thing.score] for thing in group] for name, group in kept.items()}
        return {
            "filename": str(file),
            "tag": record["tag"],
            "prompt": record["prompt"],
            "correct": not wrong,
            "reason": "\n".join(wrong),
            "metadata": json.dumps(record),
            "details": json.dumps(details),
        }


def judge_pictures(
    folder: Path, pictures: Sequence[tuple[Path, Record]], judge: Judge, settings: dict[str, Any], console: Console
) -> list[Line] | None:
    """Judge pictures into folder/results.jsonl, going on from what is there; returns all lines, in order.

    A picture that changed is judged anew. Each of several ranks judges its share, into files of its own; None where
    some are left to others. ValueError where the folder has another judge's results, a record changed since its
    picture was judged, or another process is at it.
    """
    team = take_place()
    file, own = folder / RESULTS, pictures[team.rank :: team.count]
    with alone(folder, team.rank):
        claim(folder, {"judge": judge.name} | asdict(judge.selection) | settings, team.rank)
        added = [of_rank(folder / name, team.rank) for name in (RESULTS, LOOKS)]
        for part in added:
            _drop_torn_line(part)
        digests = {path: digest_picture(path) for path, _ in pictures}
        before = _judged(folder, own, digests)
        with added[0].open("a") as lines, added[1].open("a") as looks, progress_bar(console) as progress:
            task = progress.add_task("judging", total=len(own), completed=len(before))
            for path, record in own:
                if path not in before:
                    line = judge.look(path, record)
                    _append(lines, line)
                    _append(looks, {"picture": _place(path), "digest": digests[path], "line": _digest(line)})
                    progress.advance(task)
    judged = _judged(folder, pictures, digests)
    if len(judged) < len(pictures):
        return None
    ordered = [judged[path] for path, _ in pictures]
    write_whole(file, "".join(json.dumps(line) + "\n" for line in ordered).encode())
    return ordered


def _judged(folder: Path, pictures: Sequence[tuple[Path, Record]], digests: Mapping[Path, str]) -> dict[Path, Line]:
    """The lines that all ranks have by now of pictures, as these are now."""
    file = folder / RESULTS
    lines = {_digest(line): line for part in of_ranks(file) for line in _parse(_whole_lines(part), file)}
    looks: dict[tuple[str, str], str] = {}
    for part in of_ranks(folder / LOOKS):
        for text in _whole_lines(part).splitlines():
            look = json.loads(text)
            looks[look["picture"], look["digest"]] = look["line"]
    judged = {}
    for path, record in pictures:
        line = lines.get(looks.get((_place(path), digests[path]), ""))
        if line is None:
            continue
        if json.loads(line["metadata"]) != record:
            raise ValueError(f"{file}: {path} was judged by another record; give another --out")
        judged[path] = line
    return judged


def _place(path: Path) -> str:
    return str(path.resolve())  # however it was typed


def _digest(line: Line) -> str:
    return hashlib.sha256(json.dumps(line).encode()).hexdigest()


def _append(opened: TextIO, content: dict[str, Any]) -> None:
    opened.write(json.dumps(content) + "\n")
    opened.flush()


def _whole_lines(file: Path) -> str:
    return file.read_text().rpartition("\n")[0]  # another may be writing its last line


def _drop_torn_line(file: Path) -> None:
    """A kill may cut the last line short; it is judged again."""
    with file.open("ab") as torn:
        torn.truncate(file.read_bytes().rfind(b"\n") + 1)


def read_results(file: Path) -> list[Line]:
    """The lines of an official result file. ValueError, one line, for a missing or broken one."""
    if not file.is_file():
        raise ValueError(f"{file}: no such result file; GenEval's evaluate_images.py writes results.jsonl")
    return _parse(file.read_text(), file)


def _parse(content: str, file: Path) -> list[Line]:
    lines = []
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{file}, line {number} is no JSON: {error}") from None
        for key, kind in KEYS.items():
            if not isinstance(line, dict) or not isinstance(line.get(key), kind):
                raise ValueError(f"{file}, line {number}: no {key}, or it is no {kind.__name__}")
        parse_record(line["metadata"], f"{file}, line {number}, metadata")
        lines.append(line)
    return lines


def scores(lines: Sequence[Line]) -> tuple[dict[str, float], dict[str, float]]:
    """The official figures, each task, "overall", and the shares of right "images" and "prompts"; standard errors."""
    records, correct = [json.loads(line["metadata"]) for line in lines], [line["correct"] for line in lines]
    told = summarize(records, correct)
    told |= {"images": sum(correct) / len(correct), "prompts": prompts_solved(records, correct)}
    return told, standard_errors(records, correct)


def official_summary(lines: Sequence[Line]) -> str:
    """What GenEval's summary_scores.py prints of these lines."""
    told, _ = scores(lines)
    prompts = len({line["metadata"] for line in lines})
    tasks = {tag: [line["correct"] for line in lines if line["tag"] == tag] for tag in _in_order(lines)}
    return "\n".join(
        [
            "Summary",
            "=======",
            f"Total images: {len(lines)}",
            f"Total prompts: {prompts}",
            f"% correct images: {told['images']:.2%}",
            f"% correct prompts: {told['prompts']:.2%}",
            "",
            "Task breakdown",
            "==============",
            *(f"{tag:<16} = {told[tag]:.2%} ({sum(right)} / {len(right)})" for tag, right in tasks.items()),
            "",
            f"Overall score (avg. over tasks): {told['overall']:.5f}",
        ]
    )


def _in_order(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line["tag"] for line in lines))
