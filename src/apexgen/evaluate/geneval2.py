"""GenEval 2: questions about each thing, count, attribute and relation of a prompt, scored by the answer's probability.

Soft-TIFA AM is the mean over prompts of the arithmetic mean of their questions, GM that of the geometric mean; skills
are told by AM, prompts of a number of atoms by GM.
Kamath et al., https://arxiv.org/abs/2512.16853; data: github.com/facebookresearch/GenEval2 (CC BY-NC 4.0, not shipped).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from apexgen.data.files import lines_of

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DATA = "geneval2_data.jsonl"
WHERE = "github.com/facebookresearch/GenEval2 (CC BY-NC 4.0)"


@dataclass(frozen=True)
class Prompt:
    """A line of the data."""

    text: str
    atoms: int  # things to get right; "a" and "and" are none, so there may be more questions
    questions: tuple[tuple[str, str], ...]  # question and right answer
    skills: tuple[str, ...]  # of each question


def read_prompts(data: Path) -> list[Prompt]:
    """The prompts of geneval2_data.jsonl, or of the folder that holds it. ValueError where there are none."""
    file = data / DATA if data.is_dir() else data
    if not file.is_file():
        missing = f"{data} has no {DATA}" if data.is_dir() else f"{data}: no such file"
        raise ValueError(f"{missing}; download {DATA} from {WHERE} and give it with --data")
    prompts = []
    for number, line in enumerate(lines_of(file.read_text(encoding="utf-8")), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            questions = tuple((str(question), str(answer)) for question, answer in record["vqa_list"])
            prompt = Prompt(str(record["prompt"]), int(record["atom_count"]), questions, tuple(record["skills"]))
        except (ValueError, KeyError, TypeError):
            prompt = None
        if prompt is None or not prompt.questions or len(prompt.questions) != len(prompt.skills):
            raise ValueError(f"{file}, line {number}, is no prompt of GenEval 2 with its questions and skills")
        prompts.append(prompt)
    if len({prompt.text for prompt in prompts}) < len(prompts) or not prompts:
        raise ValueError(f"{file} holds no prompts, or one twice; download it from {WHERE} anew")
    return prompts


def spellings(question: str, answer: str) -> tuple[str, ...]:
    """The spellings of a right answer: plain and capitalized, with a blank before or none; of a count its digits too.

    A question that does not begin with "How many" is one of yes or no.
    """
    words = [answer, answer.capitalize()]
    if not question.startswith("How many"):
        words = [answer.capitalize(), answer.lower()]
    elif answer.lower() in NUMBERS:
        words.append(str(NUMBERS.index(answer.lower())))
    return tuple(dict.fromkeys(f"{blank}{word}" for word in words for blank in ("", " ")))


def wording(question: str) -> str:
    """The question as the official script puts it."""
    return f"{question} Answer in one word."


def score(prompts: Sequence[Prompt], chances: Sequence[Sequence[float]]) -> dict[str, float]:
    """Soft-TIFA AM and GM, and AM of each skill, in percent. ValueError for chances of other prompts."""
    skills: dict[str, list[float]] = {}
    for prompt, own in zip(prompts, chances, strict=True):
        if len(own) != len(prompt.questions) or not all(0 <= chance <= 1 for chance in own):
            raise ValueError(f"{prompt.text!r} needs {len(prompt.questions)} probabilities, not {list(own)}")
        for skill, chance in zip(prompt.skills, own, strict=True):
            skills.setdefault(skill, []).append(chance)
    told = {"AM": fmean(map(fmean, chances)), "GM": fmean(map(_geometric_mean, chances))}
    return {name: 100 * share for name, share in (told | {s: fmean(own) for s, own in sorted(skills.items())}).items()}


def by_atoms(prompts: Sequence[Prompt], chances: Sequence[Sequence[float]]) -> dict[int, float]:
    """Soft-TIFA GM of the prompts of each number of atoms, in percent."""
    found: dict[int, list[float]] = {}
    for prompt, own in zip(prompts, chances, strict=True):
        found.setdefault(prompt.atoms, []).append(100 * _geometric_mean(own))
    return {count: fmean(values) for count, values in sorted(found.items())}


def _geometric_mean(chances: Sequence[float]) -> float:
    return 0.0 if min(chances) == 0 else math.exp(fmean(map(math.log, chances)))


def read_images(file: Path, prompts: Sequence[Prompt]) -> dict[str, Path]:
    """The official map of prompts to pictures' paths, relative to where one works or to the file."""
    mapping = _json(file)
    if not isinstance(mapping, dict):
        raise ValueError(f"{file} is no JSON object of prompts and paths of pictures")
    missing = [prompt.text for prompt in prompts if prompt.text not in mapping]
    if missing:
        raise ValueError(f"{file} has no picture of {missing[0]!r}, and of {len(missing) - 1} other prompts")
    paths = {prompt.text: Path(mapping[prompt.text]) for prompt in prompts}
    return {text: path if path.is_file() else file.parent / path for text, path in paths.items()}


def read_score_lists(file: Path, prompts: Sequence[Prompt]) -> list[list[float]]:
    """The official list of each prompt's probabilities, in the data's order.

    A sum that rounding carried over 1 is 1, as far as 1e-5. ValueError for any other content.
    """
    lists = _json(file)
    try:
        found = [[1.0 if 1 < value <= 1 + 1e-5 else float(value) for value in own] for own in lists]
    except (TypeError, ValueError):
        raise ValueError(f"{file} is no list of lists of probabilities") from None
    if len(found) != len(prompts):
        raise ValueError(f"{file} has {len(found)} prompts and the data {len(prompts)}; give the data it was made with")
    return found


def _json(file: Path) -> object:
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{file} is no JSON") from None
