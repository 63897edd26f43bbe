"""GenEval 2 from end to end: a picture a prompt, the probability of each right answer, the official files."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from apexgen.evaluate import geneval2
from apexgen.evaluate.gallery import Job
from apexgen.evaluate.interview import count_unanswered, interview
from apexgen.evaluate.judge import Chance, Inquiry, View
from apexgen.evaluate.result import Result, data_digest
from apexgen.evaluate.source import Judging, Source
from apexgen.files import write_whole

NAME = "GenEval 2"


def run(data: Path, source: Source, judging: Judging, seed: int, strict: bool, console: Console) -> Result | None:
    """Judge all prompts of `data`; None where other ranks are at it still.

    strict: questions without our word of caution.
    Raises ValueError, before anything is drawn, for data, a model or a judge that can't be used; for a judge that
    tells no probabilities at its first answer.
    """
    prompts = geneval2.read_prompts(data)
    source.check()
    judging.check()
    names = [f"{index:05}.png" for index in range(len(prompts))]
    jobs = [Job(name, prompt.text, seed) for name, prompt in zip(names, prompts, strict=True)]
    if not source.draw(jobs, console):
        return None
    pictures = _pictures(source, prompts, names)
    inquiries = [
        Inquiry(
            f"{index}/{place}",
            View(pictures[prompt.text]),
            geneval2.wording(question),
            Chance(geneval2.spellings(question, answer), guarded=not strict),
        )
        for index, prompt in enumerate(prompts)
        for place, (question, answer) in enumerate(prompt.questions)
    ]
    judge = judging.open()
    answers = interview(judge, inquiries, source.out / "answers.jsonl", console)
    if answers is None:
        return None
    values = iter(0.0 if answer.value is None else float(answer.value) for answer in answers)
    chances = [[next(values) for _ in prompt.questions] for prompt in prompts]
    _write(source.out / "images.json", {text: str(file) for text, file in pictures.items()})
    _write(source.out / "score_lists.json", chances)
    _write(source.out / "by_atoms.json", geneval2.by_atoms(prompts, chances))
    scores = geneval2.score(prompts, chances) | {"unanswered": count_unanswered(answers, console)}
    settings = {"strict": strict, "data": data_digest(prompts)} | judge.settings()
    judged = {"scores": scores, "n": len(prompts), "seeds": () if source.pictures else (seed,), "settings": settings}
    return source.conclude({"benchmark": NAME, "judge": judge.name} | judged)


def _pictures(source: Source, prompts: Sequence[geneval2.Prompt], names: Sequence[str]) -> dict[str, Path]:
    """Each prompt's picture: of the official map, where --pictures names one, or numbered in a folder."""
    if source.folder.is_file():
        return geneval2.read_images(source.folder, prompts)
    return {prompt.text: source.folder / name for prompt, name in zip(prompts, names, strict=True)}


def read_official(file: Path, data: Path) -> tuple[dict[str, float], int]:
    """The figures of an official list of probabilities, and the number of pictures."""
    prompts = geneval2.read_prompts(data)
    return geneval2.score(prompts, geneval2.read_score_lists(file, prompts)), len(prompts)


def _write(file: Path, content: object) -> None:
    write_whole(file, json.dumps(content, ensure_ascii=False).encode())
