"""Models by their number of steps: one table, a chart of each measure, one grid of pictures, one page."""

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageOps
from rich.console import Console

from apexgen.drawer import Drawer, Model
from apexgen.evaluate.clip import open_clip
from apexgen.evaluate.collection import Collection
from apexgen.evaluate.features import pixels
from apexgen.evaluate.gallery import Job, fill, read_pictures
from apexgen.evaluate.geneval.run import Choice
from apexgen.evaluate.looks import Looks
from apexgen.evaluate.protocols import repeated_jobs
from apexgen.evaluate.result import Result, save_result
from apexgen.evaluate.scenes import judge
from apexgen.evaluate.statistics import diversity, prompt_fit
from apexgen.evaluate.subject import Subject, open_subject
from apexgen.evaluate.weights import best_device
from apexgen.files import write_whole
from apexgen.progress import working
from apexgen.report import picture_grid
from apexgen.report.curves import EVALUATIONS, chart
from apexgen.report.grid import CELL
from apexgen.rules import Record
from apexgen.scenes.pipeline import FOLDER
from apexgen.scenes.prompts import Caption, draw_captions
from apexgen.size import Size

CAPTIONS_SEED = 3_000_000  # far from the training draws and from other examinations
SHOWN = 4  # prompts in the grid


@dataclass(frozen=True)
class Protocol:
    """What every model draws, and who judges it."""

    prompts: tuple[str, ...]  # different ones
    seeds: tuple[int, ...]  # of each prompt
    captions: tuple[Caption, ...] = ()  # of the embedded world, where its exact judge is to score
    clip: Path | None = None  # a CLIP's folder, where it is to score
    records: tuple[Record, ...] = ()  # of each prompt, where GenEval's judge is to score
    choice: Choice | None = None  # that judge
    cache: Path = Path()

    def jobs(self) -> list[Job]:
        """A picture for each prompt and seed."""
        return repeated_jobs(self.prompts, self.seeds)


def protocol_of(prompts: Sequence[str] | None, seeds: int, per_task: int, clip: Path | None, cache: Path) -> Protocol:
    """Captions of the embedded world and its exact judge where no prompts are given; else prompts, and a CLIP if any.

    ValueError for less than two seeds, which variety takes, for a CLIP without prompts, or where there is none.
    """
    numbers = _numbers(seeds)
    if prompts is not None:
        if clip is not None:
            open_clip(clip)  # what is missing is told before hours of drawing
        return Protocol(tuple(dict.fromkeys(prompts)), numbers, clip=clip, cache=cache)
    if clip is not None:
        raise ValueError("--clip is of your own prompts; add --prompts FILE")
    captions = {caption.text: caption for caption in draw_captions(per_task, held_out=True, seed=CAPTIONS_SEED)}
    return Protocol(tuple(captions), numbers, tuple(captions.values()), cache=cache)


def geneval_protocol(records: Sequence[Record], seeds: int, choice: Choice, cache: Path) -> Protocol:
    """GenEval's prompts, each once, and its judge, whose weights are looked for; ValueError for less than two seeds."""
    numbers = _numbers(seeds)
    choice.find()  # what is missing is told before hours of drawing
    asked = {record["prompt"]: record for record in records}
    return Protocol(tuple(asked), numbers, cache=cache, records=tuple(asked.values()), choice=choice)


def _numbers(seeds: int) -> tuple[int, ...]:
    if seeds < 2:
        raise ValueError(f"--seeds {seeds}: variety takes two pictures a prompt; write --seeds 2")
    return tuple(range(seeds))


def sweep(
    subjects: Sequence[Subject],
    steps: Sequence[int],
    protocol: Protocol,
    size: Size | None,
    folder: Path,
    console: Console,
) -> list[Result] | None:
    """Draw and judge every model in every number of steps, and write table, charts, grid and page into the folder.

    The same call goes on from where it was stopped; None where other ranks are not done drawing.
    ValueError where a model can't be opened, or its captions are of a world it does not know.
    """
    results: dict[tuple[str, int], Result] = {}
    shown, left = {}, 0
    looks = None if protocol.choice is None else Looks.open(protocol.choice)
    for subject in subjects:
        if subject.steps is not None:
            raise ValueError(f"{subject.text}: a sweep is over steps; leave @{subject.steps} out, and write --steps")
    for subject in subjects:
        model = _open(subject, size, protocol)
        for count in steps:
            drawer = model.drawer(count, subject.guidance)
            pictures = folder / "pictures" / subject.file_name / f"{count:02d}"
            elsewhere = fill(pictures, protocol.jobs(), drawer, console)
            result = None if elsewhere else score(subject, drawer, pictures, protocol, looks, console)
            if result is None:
                left += 1
                continue
            save_result(result, folder / "results" / f"{subject.file_name}-{count:02d}.json")
            results[subject.text, count] = result
            shown[subject.text, count] = first_pictures(pictures, protocol)
    if left:
        return None
    write_page(folder, results, shown, protocol)
    return list(results.values())


def _open(subject: Subject, size: Size | None, protocol: Protocol) -> Model:
    """The subject's model; ValueError where it can't be opened, or knows nothing of the world it is asked about."""
    with working(f"opening {subject.folder}"):
        model = open_subject(subject, size)
    if protocol.captions and FOLDER not in model.files:
        raise ValueError(
            f"{subject.text} is not the embedded model, whose captions it has no use for: add --prompts FILE"
        )
    return model


def score(
    subject: Subject, drawer: Drawer, folder: Path, protocol: Protocol, looks: Looks | None, console: Console
) -> Result | None:
    """What the judge says of a gallery, and how unlike the pictures of one prompt are; None where ranks judge still."""
    jobs = protocol.jobs()
    collection = Collection(folder, tuple(job.path for job in jobs), ("",) * len(jobs))
    prompts = [job.prompt for job in jobs]
    known = {"model": f"{subject.text}@{drawer.steps}"}
    varied = diversity("sweep", collection, prompts, pixels(), protocol.cache, console, known)
    scores, spread, said = {"within": varied.scores["within"]}, dict(varied.spread), varied.settings
    judges = [varied.judge]
    if protocol.captions:
        repeated = [caption for caption in protocol.captions for _ in protocol.seeds]
        exact = judge(repeated, np.concatenate(list(read_pictures(collection.files))))
        scores = {"score": exact["score"]["overall"], "places": exact["spread"]["pairwise"]} | scores
        judges.insert(0, "the exact judge of scenes")
    if protocol.clip is not None:
        fit = prompt_fit("sweep", collection, prompts, protocol.clip, protocol.cache, console, best_device(), known)
        scores, spread = {"CLIP score": fit.scores["all"]} | scores, {"CLIP score": fit.spread["all"]} | spread
        said = {"variety": said, "clip": fit.settings}
        judges.insert(0, fit.judge)
    if looks is not None:
        told = looks.judge(folder, protocol.records, protocol.seeds, console)
        if told is None:
            return None
        scores, spread = told[0] | scores, told[1] | spread
        said = {"variety": said, "geneval": looks.settings}
        judges.insert(0, looks.opened.name)
    return varied.model_copy(
        update={"benchmark": "sweep", "judge": ", ".join(judges), "scores": scores, "spread": spread, "settings": said}
    )


def first_pictures(folder: Path, protocol: Protocol) -> np.ndarray:
    """The first picture of each of the prompts that the grid shows."""
    [pictures] = read_pictures([folder / f"{number:04d}-{protocol.seeds[0]}.png" for number in shown_prompts(protocol)])
    return pictures


def shown_prompts(protocol: Protocol) -> list[int]:
    """Which prompts the grid shows: evenly from first to last."""
    count = min(SHOWN, len(protocol.prompts))
    return [round(index * (len(protocol.prompts) - 1) / max(count - 1, 1)) for index in range(count)]


def write_page(
    folder: Path,
    results: dict[tuple[str, int], Result],
    shown: dict[tuple[str, int], np.ndarray],
    protocol: Protocol,
) -> None:
    """sweep.json, grid.png and sweep.html, which needs no other file, each whole or not at all."""
    names, every = list(dict.fromkeys(name for name, _ in shown)), list(results.values())
    counts = list(dict.fromkeys(count for _, count in shown))
    shown = of_one_size(shown)
    rows = [f"{name}: {protocol.prompts[number]}" for name in names for number in shown_prompts(protocol)]
    grid = picture_grid(rows, {f"@{count}": np.concatenate([shown[name, count] for name in names]) for count in counts})
    pages = Environment(loader=PackageLoader("apexgen.evaluate", "."), autoescape=True, undefined=StrictUndefined)
    page = pages.get_template("sweep.html.jinja").render(
        judge=every[0].judge,
        prompts=len(protocol.prompts),
        seeds=len(protocol.seeds),
        scores=list(every[0].scores),
        results=every,
        charts={measure: chart(measure, curves(measure, results), EVALUATIONS) for measure in every[0].scores},
        grid=base64.b64encode(_encoded(grid, "WEBP")).decode(),
    )
    told = [result.model_dump(mode="json") for result in every]
    write_whole(folder / "sweep.json", (json.dumps(told, indent=1) + "\n").encode())
    write_whole(folder / "grid.png", _encoded(grid, "PNG"))
    write_whole(folder / "sweep.html", page.encode())


def of_one_size(shown: dict[tuple[str, int], np.ndarray]) -> dict[tuple[str, int], np.ndarray]:
    """Pictures (B, H, W, 3) as the grid takes them: models of unlike sizes are scaled into squares of one."""
    if len({pictures.shape[1:] for pictures in shown.values()}) == 1:
        return shown

    def squared(picture: np.ndarray) -> np.ndarray:
        image = Image.fromarray((picture * 255).round().astype(np.uint8))
        return np.asarray(ImageOps.pad(image, (CELL, CELL), color="white"), dtype=np.float32) / 255

    return {key: np.stack([squared(picture) for picture in pictures]) for key, pictures in shown.items()}


def curves(measure: str, results: dict[tuple[str, int], Result]) -> list[tuple[str, dict[float, float]]]:
    """A measure of each model by evaluations of the network."""
    drawn: dict[str, dict[float, float]] = {}
    for (name, _), result in results.items():
        drawn.setdefault(name, {})[float(result.evaluations or 0)] = result.scores[measure]
    return list(drawn.items())


def _encoded(picture: Any, form: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


def read_steps(text: str) -> list[int]:
    """Numbers of steps from "1-4,8,16", increasing; ValueError, one line, for anything else."""
    steps: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d*)(?:-(\d+))?\s*", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if high < low:
            raise ValueError(f"--steps {text}: write numbers and ranges from 1 on, such as --steps 1-4,8,16")
        steps.update(range(low, high + 1))
    return sorted(steps)
