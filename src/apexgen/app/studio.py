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

    def draw(self, prompts: Sequence[str], seed: float | None, steps: int, many_steps: int) -> list[Pair]:
        """A pair for each prompt, prompt i from seed + i.

        Raises ValueError, one line, for no or too many prompts, an empty one, a seed that is none.
        """
        prompts = check_prompts(prompts, "prompt")
        if len(prompts) > MOST_PROMPTS:
            raise ValueError(f"{len(prompts)} prompts: at most {MOST_PROMPTS} at once; leave some for later")
        if seed is None or seed != int(seed) or not 0 <= seed <= LARGEST_SEED - MOST_PROMPTS:
            said = "empty" if seed is None else f"{seed:g}"
            raise ValueError(f"the seed is {said}; write a whole number such as 0, or throw the dice")
        seeds = range(int(seed), int(seed) + len(prompts))
        with self._alone:
            few = self._draw(self.few(steps), prompts, seeds)
            many = self._draw(self.model.teacher(many_steps, self.guidance), prompts, seeds)
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


def _file_name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80]
