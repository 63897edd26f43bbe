"""What the page draws: for each prompt a pair from one noise, the teacher's picture and the student's, each timed."""

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from apexgen.drawer import Drawer, Model
from apexgen.encode import check_prompts
from apexgen.png import to_png

MOST_PROMPTS = 64  # at once
LARGEST_SEED = 2**32 - 1
FEW = (1, 2, 4)  # steps to choose from
MANY = 50  # steps of the teacher, and at most so many


@dataclass(frozen=True)
class Drawn:
    """One picture, a PNG file, and how it was made."""

    name: str  # of the drawer, such as "student@1"
    prompt: str
    seed: int
    evaluations: int  # of the network
    seconds: float  # a picture, of the very batch it was drawn in
    batch: int  # pictures in that
    file: Path


@dataclass(frozen=True)
class Pair:
    """The same prompt and noise, drawn in many steps and in few."""

    many: Drawn
    few: Drawn


class Studio:
    """An opened model that draws pairs into a folder, one batch at a time whoever asks.

    Many steps are the teacher's, guided; few are the student's, or where there is none, the teacher's.
    """

    def __init__(self, model: Model, guidance: float, folder: Path) -> None:
        self.model, self.guidance, self.folder = model, guidance, folder
        self._numbers, self._alone = count(1), threading.Lock()  # a model's roles share its weights

    def few(self, steps: int) -> Drawer:
        """What draws in few steps."""
        if self.model.distilled is None:
            return self.model.teacher(steps, self.guidance)
        return self.model.student(steps)

    def draw(self, prompts: Sequence[str], seed: object, steps: object, many_steps: object) -> list[Pair]:
        """A pair for each prompt, prompt i from seed + i.

        Raises ValueError, one line, for no or too many prompts, an empty one, a seed or steps that are none.
        """
        prompts = check_prompts(prompts, "prompt")
        if len(prompts) > MOST_PROMPTS:
            raise ValueError(f"{len(prompts)} prompts: at most {MOST_PROMPTS} at once; leave some for later")
        first = _chosen(
            "the seed", seed, range(LARGEST_SEED - MOST_PROMPTS + 1), "a whole number such as 0, or throw the dice"
        )
        few_steps = _chosen("the number of few steps", steps, FEW, "1, 2 or 4")
        teacher_steps = _chosen("the number of teacher steps", many_steps, range(1, MANY + 1), f"1 to {MANY}")
        seeds = range(first, first + len(prompts))
        with self._alone:
            few = self._draw(self.few(few_steps), prompts, seeds)
            many = self._draw(self.model.teacher(teacher_steps, self.guidance), prompts, seeds)
        return [Pair(*pair) for pair in zip(many, few, strict=True)]

    def _draw(self, drawer: Drawer, prompts: Sequence[str], seeds: Sequence[int]) -> list[Drawn]:
        began = time.perf_counter()
        pictures = drawer.draw(prompts, seeds)
        seconds = (time.perf_counter() - began) / len(prompts)
        drawn = []
        for picture, prompt, seed in zip(pictures, prompts, seeds, strict=True):
            file = self.folder / f"{next(self._numbers):05d}-{_file_name(f'{prompt} {seed} {drawer.name}')}.png"
            said = {"prompt": prompt, "seed": seed, "steps": drawer.steps, "guidance": drawer.guidance}
            file.write_bytes(to_png(picture, said | {"drawer": drawer.name, "model": self.model.name}))
            drawn.append(Drawn(drawer.name, prompt, seed, drawer.evaluations, seconds, len(prompts), file))
        return drawn

    def unknown_words(self, prompts: Sequence[str]) -> list[str]:
        """Words that the model's tokenizer has no token for, each once."""
        tokenizer = self.model.backbone.pipeline.tokenizer
        words = dict.fromkeys(word.strip(".,;:!?\"'()") for prompt in prompts for word in prompt.split())
        unknown = tokenizer.unk_token_id
        if unknown is None:
            return []
        return [word for word in words if unknown in tokenizer(word, add_special_tokens=False).input_ids]


def _chosen(what: str, value: object, among: Sequence[int], advice: str) -> int:
    """The whole number that a value is; ValueError where it is none of these."""
    try:
        number = float(str(value))
        if int(number) == number and int(number) in among:
            return int(number)
    except (ValueError, OverflowError):  # no number, not a number, or no end of one
        pass
    said = "empty" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)[:40]
    raise ValueError(f"{what} is {said}; write {advice}")


def _file_name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80]
