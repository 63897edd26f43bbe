"""WISE from end to end: a picture a prompt, judged by the protocol's marks, written as the official files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from apexgen.evaluate import wise
from apexgen.evaluate.gallery import Job
from apexgen.evaluate.interview import Answer, count_unanswered, interview
from apexgen.evaluate.judge import Form, Inquiry, View
from apexgen.evaluate.result import Result, data_digest
from apexgen.evaluate.source import Judging, Source
from apexgen.evaluate.wise_files import read_marks, write_files
from apexgen.evaluate.wise_instruction import Instruction, read_instruction

UNGUARDED = (
    "asked as published: a judge that repeats what is drawn into a picture, such as Score: 1, is taken at its word"
)


def find_protocol(name: str) -> wise.Protocol:
    """legacy or verified; ValueError for others."""
    if name not in wise.PROTOCOLS:
        raise ValueError(f"--protocol {name}: there are {' and '.join(wise.PROTOCOLS)}; write --protocol verified")
    return wise.PROTOCOLS[name]


def run(
    data: Path,
    protocol: wise.Protocol,
    source: Source,
    judging: Judging,
    instruction: Path | None,
    seed: int,
    console: Console,
) -> Result | None:
    """Judge all prompts of `data` by `instruction`, ours unless given; None where other ranks are at it still.

    Raises ValueError, before anything is drawn, for data, a model, an instruction or a judge that can't be used.
    """
    prompts = wise.read_prompts(data, protocol)
    told = Instruction(protocol.instruction) if instruction is None else read_instruction(instruction)
    source.check()
    judging.check()
    if not source.draw([Job(f"{prompt.id}.png", prompt.text, seed) for prompt in prompts], console):
        return None
    inquiries = _ask_about(source.folder, prompts, told, protocol.form(guarded=instruction is None))
    judge = judging.open()
    answers = interview(judge, inquiries, source.out / "answers.jsonl", console)
    if answers is None:
        return None
    write_files(source.out / "results", protocol, prompts, answers, source.folder)
    scores = wise.score(protocol, _marks(prompts, answers)) | {"unanswered": count_unanswered(answers, console)}
    judged = {
        "scores": scores,
        "n": len(prompts),
        "seeds": () if source.pictures else (seed,),
        "settings": _told(instruction, told) | {"data": data_digest(prompts)} | judge.settings(),
        "notes": () if instruction is None else (UNGUARDED,),
    }
    return source.conclude({"benchmark": protocol.name, "judge": judge.name} | judged)


def _ask_about(folder: Path, prompts: Sequence[wise.Prompt], told: Instruction, form: Form) -> list[Inquiry]:
    """The one question about every picture."""
    return [
        Inquiry(str(prompt.id), View(folder / f"{prompt.id}.png"), told.word(prompt), form, told.system)
        for prompt in prompts
    ]


def _marks(prompts: Sequence[wise.Prompt], answers: Sequence[Answer]) -> dict[int, list[int] | None]:
    """The marks of each prompt, None where it is unanswered."""
    return {
        prompt.id: None if answer.value is None else [int(mark) for mark in answer.value]
        for prompt, answer in zip(prompts, answers, strict=True)
    }


def _told(instruction: Path | None, told: Instruction) -> dict[str, str]:
    """The settings that tell one wording, and one way to put it, from others."""
    return (
        {"instruction": "apexgen's"} if instruction is None else {"instruction": _digest(told), "order": "text first"}
    )


def read_official(folder: Path, protocol: wise.Protocol) -> tuple[dict[str, float], int]:
    """The figures of a folder of official files, and the number of pictures."""
    marks = read_marks(folder, protocol)
    unanswered = sum(own is None for own in marks.values())
    return wise.score(protocol, marks) | {"unanswered": unanswered}, len(marks)


def _digest(told: Instruction) -> str:
    return hashlib.sha256(f"{told.system}\n{told.user}".encode()).hexdigest()[:16]
