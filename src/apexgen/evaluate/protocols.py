"""Whole evaluations: draw what a benchmark asks for, judge it, keep the results beside the pictures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from apexgen.drawer import Drawer
from apexgen.evaluate import mjhq
from apexgen.evaluate.clip import open_clip
from apexgen.evaluate.collection import Collection
from apexgen.evaluate.features import Extractor, open_extractor
from apexgen.evaluate.gallery import Job, fill
from apexgen.evaluate.result import Result, save_result
from apexgen.evaluate.statistics import distances, diversity, prompt_fit
from apexgen.evaluate.weights import best_device


@dataclass(frozen=True)
class Judges:
    """The networks that judge, opened before anything is drawn."""

    extractor: Extractor | None  # for FID and KID
    clip: Path | None  # for CLIP score
    cache: Path  # of their features
    seed: int  # of pictures, and of KID's subsets

    @classmethod
    def open(cls, features: Path | None, resize: str | None, clip: Path | None, cache: Path, seed: int) -> "Judges":
        """What the options name; ValueError, one line, where they name nothing, or what is not there."""
        extractor = None
        if features is not None or clip is None:
            extractor = open_extractor(features, resize, best_device())
        elif resize is not None:
            raise ValueError("--resize is of FID's Inception; add --features FILE or leave --resize out")
        if clip is not None:
            open_clip(clip)
        return cls(extractor, clip, cache, seed)


def judge_mjhq(
    drawer: Drawer, data: Path, judges: Judges, limit: int | None, folder: Path, console: Console
) -> list[Result] | None:
    """FID, KID and CLIP score on MJHQ-30K, overall and by category; results are fid.json, kid-x-1000.json, ...

    Pictures are at CATEGORY/ID.png in the folder; the same call goes on. `limit`: prompts of each category, against
    all of the data set's pictures. None where other ranks are not done drawing.
    """
    entries = mjhq.read_mjhq(data)
    reference = None if judges.extractor is None else mjhq.reference_pictures(data, entries)
    chosen = mjhq.jobs(entries, judges.seed, limit)
    if fill(folder, chosen, drawer, console):
        return None
    drawn, results = mjhq.drawn_pictures(folder, chosen), []
    known = {"seeds": (judges.seed,)}
    if judges.extractor is not None and reference is not None:
        results = distances("MJHQ-30K", reference, drawn, judges.extractor, judges.cache, console, judges.seed, known)
    if judges.clip is not None:
        prompts = {job.path: job.prompt for job in chosen}
        texts = [prompts[name] for name in drawn.names]
        results.append(prompt_fit("MJHQ-30K", drawn, texts, judges.clip, judges.cache, console, best_device(), known))
    return save_all(results, folder)


def judge_diversity(
    drawer: Drawer,
    prompts: Sequence[str],
    seeds: int,
    extractor: Extractor,
    cache: Path,
    folder: Path,
    console: Console,
) -> list[Result] | None:
    """Draw each different prompt from seeds 0, 1, ... and say how unlike its pictures are; result in diversity.json."""
    chosen = repeated_jobs(list(dict.fromkeys(prompts)), range(seeds))
    if fill(folder, chosen, drawer, console):
        return None
    drawn = Collection(folder, tuple(job.path for job in chosen), ("",) * len(chosen))
    texts = [job.prompt for job in chosen]
    return save_all([diversity("prompts", drawn, texts, extractor, cache, console)], folder)


def repeated_jobs(prompts: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """A picture for each prompt and seed, at NUMBER-SEED.png."""
    return [Job(f"{row:04d}-{seed}.png", prompt, seed) for row, prompt in enumerate(prompts) for seed in seeds]


def save_all(results: list[Result], folder: Path) -> list[Result]:
    """Each result as JSON in the folder, named by its benchmark without its first word; alike ones by model too."""
    names = [_file_name(result.benchmark.partition(" ")[2] or result.benchmark) for result in results]
    if len(set(names)) < len(names):
        names = [f"{name}-{_file_name(result.model)}" for name, result in zip(names, results, strict=True)]
    for name, result in zip(names, results, strict=True):
        save_result(result, folder / f"{name}.json")
    return results


def _file_name(words: str) -> str:
    return re.sub(r"[^\w.]+", "-", words.lower()).strip("-.")
