"""DPG-Bench from end to end: four pictures a prompt, joined into grids, judged, scored, told in the official files."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from apexgen.evaluate import dpg
from apexgen.evaluate.dpg_files import Box, detail_of, read_detail, read_scores, write_detail, write_scores
from apexgen.evaluate.gallery import Job, open_picture
from apexgen.evaluate.interview import Answer, count_unanswered, interview
from apexgen.evaluate.judge import YES_NO, Inquiry, View
from apexgen.evaluate.result import Result, data_digest
from apexgen.evaluate.source import Judging, Source
from apexgen.evaluate.variety import BY_PIXELS, apart
from apexgen.files import write_whole

NAME = "DPG-Bench"
Sheets = dict[str, tuple[Path, list[Box]]]  # each item's picture and its crops
Said = dict[str, list[dict[int, str]]]  # of each item's crops: yes, no or unanswered, by the question's number


def run(
    data: Path,
    source: Source,
    judging: Judging,
    seed: int,
    crops: int,
    strict: bool,
    console: Console,
    resolution: int | None = None,
) -> Result | None:
    """Judge all prompts of `data`; None where other ranks are at it still. Picture k of a prompt has seed + k.

    resolution: the side, in pixels, that each of others' pictures must have in its grid.
    Raises ValueError, before anything is drawn, for data, a model or a judge that can't be used; later for pictures
    that are missing or broken, unless strict, where they are dropped as the published script does.
    """
    _check(source, crops, resolution)
    prompts, graphs = _read(data, strict)
    source.check()
    judging.check()
    jobs = [Job(f"{item}/{k}.png", text, seed + k) for item, text in prompts.items() for k in range(crops)]
    if not source.draw(jobs, console):
        return None
    folder = source.folder if source.pictures else join_grids(source.folder, source.out / "grids", list(prompts), crops)
    sheets, dropped = find_sheets(folder, list(prompts), crops, strict, resolution)
    inquiries = _ask_about(sheets, graphs)
    judge = judging.open()
    answers = interview(judge, inquiries, source.out / "answers.jsonl", console)
    if answers is None:
        return None
    said = by_crop(sheets, inquiries, answers)
    scores = dpg.score(graphs, _yes(said), strict)
    write_official(source.out / "results.txt", folder, graphs, scores, said, sheets)
    told = scores.told() | {"unanswered": count_unanswered(answers, console)}
    if strict:
        told["dropped"] = dropped + len(scores.dropped)
    settings = {"strict": strict, "crops": crops, "data": data_digest([prompts, graphs]), "within": BY_PIXELS}
    judged = {"scores": told, "n": crops * len(scores.pictures), "settings": settings | judge.settings()}
    return source.conclude({"benchmark": NAME, "judge": judge.name} | judged | _known(source, jobs, told))


def _yes(said: Said) -> dict[str, list[dict[int, bool]]]:
    """Which questions were answered yes."""
    return {item: [{n: word == "yes" for n, word in crop.items()} for crop in own] for item, own in said.items()}


def _known(source: Source, jobs: Sequence[Job], told: dict[str, float]) -> dict[str, Any]:
    """What a result says of pictures drawn here: seeds, and beside `told` how far those of a prompt are apart.

    Nothing of others' grids, of which nobody can tell what was drawn for which seed.
    """
    if source.pictures:
        return {}
    varied, error = apart([source.folder / job.path for job in jobs], [job.prompt for job in jobs])
    return {"scores": told | varied, "spread": error, "seeds": tuple(sorted({job.seed for job in jobs}))}


def _check(source: Source, crops: int, resolution: int | None) -> None:
    if not 1 <= crops <= dpg.CROPS:
        raise ValueError(f"--crops {crops}: 1 to {dpg.CROPS}; write --crops {dpg.CROPS}")
    if resolution is not None and source.pictures is None:
        raise ValueError("--resolution does nothing without --pictures; leave it out")


def _read(data: Path, strict: bool) -> tuple[dict[str, str], dict[str, dpg.Graph]]:
    """Prompts and questions by item; ValueError where a prompt has none."""
    prompts, graphs = dpg.read_prompts(data), dpg.read_graphs(data, strict)
    if unasked := sorted(prompts.keys() - graphs.keys()):
        raise ValueError(f"{data / 'dpg_bench.csv'} has no question about {unasked[0]}, which is in prompts")
    return prompts, graphs


def _ask_about(sheets: Sheets, graphs: dict[str, dpg.Graph]) -> list[Inquiry]:
    """Every question about every crop."""
    return [
        Inquiry(f"{item}/{place}/{number}", View(file, box), question.text, YES_NO)
        for item, (file, own) in sheets.items()
        for place, box in enumerate(own)
        for number, question in graphs.get(item, {}).items()
    ]


def join_grids(drawn: Path, grids: Path, items: Sequence[str], crops: int) -> Path:
    """Write each item's grid, where it is not there or older than its pictures; returns their folder."""
    grids.mkdir(parents=True, exist_ok=True)
    for item in items:
        files, target = [drawn / item / f"{k}.png" for k in range(crops)], grids / f"{item}.png"
        newest = max(file.stat().st_mtime_ns for file in files)
        if not target.is_file() or target.stat().st_mtime_ns < newest:
            content = io.BytesIO()
            dpg.grid(files).save(content, "PNG")
            write_whole(target, content.getvalue())
    return grids


def find_sheets(
    folder: Path, items: Sequence[str], crops: int, strict: bool, resolution: int | None = None
) -> tuple[Sheets, int]:
    """The items' pictures and their crops; strict: all files that can be read, and how many can't.

    ValueError for pictures that are missing or broken, unless strict; for those whose crops are not of `resolution`.
    """
    files = {dpg.item_of(file): file for file in sorted(folder.glob("[!.]*")) if strict or file.suffix == ".png"}
    missing = [item for item in items if item not in files]
    if missing and not strict:
        raise ValueError(f"{folder} has no {missing[0]}.png; of {len(items)} pictures {len(missing)} are missing")
    sheets: Sheets = {}
    for item in files if strict else items:
        try:
            size = open_picture(files[item]).size
        except ValueError:
            if not strict:
                raise
            continue
        _check_size(files[item], size, crops, resolution)
        sheets[item] = files[item], dpg.boxes(size, crops)
    return sheets, len(files) - len(sheets) if strict else 0


def _check_size(file: Path, size: tuple[int, int], crops: int, resolution: int | None) -> None:
    if resolution is None:
        return
    side = resolution if crops == 1 else 2 * resolution
    if size != (side, side):
        instead = "; add --crops 1 for single pictures" if size == (resolution, resolution) else ""
        raise ValueError(
            f"{file} has {size[0]}x{size[1]} pixels, not the {side}x{side} of --resolution {resolution}{instead}"
        )


def by_crop(sheets: Sheets, inquiries: Sequence[Inquiry], answers: Sequence[Answer]) -> Said:
    """What was said of each crop."""
    said: Said = {item: [{} for _ in own] for item, (_, own) in sheets.items()}
    for inquiry, answer in zip(inquiries, answers, strict=True):
        item, place, number = inquiry.id.rsplit("/", 2)
        said[item][int(place)][int(number)] = "unanswered" if answer.value is None else answer.value[0]
    return said


def write_official(
    file: Path,
    folder: Path,
    graphs: dict[str, dpg.Graph],
    scores: dpg.Scores,
    said: Said,
    sheets: Sheets,
) -> None:
    """Write both official files."""
    write_scores(file, folder.name, folder, scores)
    write_detail(detail_of(file), folder, graphs, said, {item: own for item, (_, own) in sheets.items()})


def _score_anew(graphs: dict[str, dpg.Graph], answers: dict[str, list[dpg.Crop]], strict: bool) -> dpg.Scores:
    try:
        return dpg.score(graphs, answers, strict)
    except ValueError as reason:
        if strict:
            raise
        hint = "; where the published script wrote them, which leaves the table's first row out, add --strict-official"
        raise ValueError(f"{reason}{hint}") from None


def read_official(file: Path, data: Path, strict: bool) -> tuple[dict[str, float], int]:
    """The figures of an official file and the number of crops; a _detail.txt is scored anew."""
    if not file.stem.endswith("_detail"):
        if strict:
            raise ValueError("--strict-official does nothing with scores; name the _detail.txt, or leave it out")
        scores, other = read_scores(file), 0
    else:
        graphs = dpg.read_graphs(data, strict)
        answers, other = read_detail(file, graphs, strict)
        scores = _score_anew(graphs, answers, strict)
    told = scores.told() | {"unanswered": other} | ({"dropped": len(scores.dropped)} if strict else {})
    return told, sum(map(len, scores.pictures.values()))
