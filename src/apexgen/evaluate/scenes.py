"""Score a velocity on the embedded world: the same prompts and noises for everyone, an exact judge, the time taken.

Or a drawer, by way of a gallery, into a Result.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.condition import Condition
from apexgen.evaluate.gallery import Job, fill, read_picture
from apexgen.evaluate.result import Result, save_result
from apexgen.generate import draw_noises, make_pictures
from apexgen.rules import standard_errors, summarize
from apexgen.scenes.draw import draw_pictures
from apexgen.scenes.prompts import Caption, draw_captions
from apexgen.scenes.score import Found, is_correct, parse
from apexgen.scenes.spread import color_variety, spread
from apexgen.velocities import Velocity

if TYPE_CHECKING:
    from apexgen.drawer import Drawer

MOST_STEPS = 16  # of jumps
SINGLE = ("single_object", "colors")  # the tasks of one figure, whose places and sizes are free


@dataclass(frozen=True)
class Examination:
    """Held-out captions with their conditions and noises: the same for every model that sits it."""

    captions: list[Caption]
    condition: Condition
    noises: Tensor  # (most steps, B, C, h, w): the first to start from, the others for `renoise`

    @classmethod
    def draw(cls, backbone: Backbone, per_task: int, seed: int) -> "Examination":
        """`per_task` held-out captions of each of the six tasks; caption i has noise of seed + i."""
        captions = draw_captions(per_task, held_out=True, seed=seed)
        condition = backbone.encode_text([caption.text for caption in captions])
        return cls(
            captions,
            condition,
            draw_noises(range(seed, seed + len(captions)), backbone.latent_shape(), MOST_STEPS),
        )

    def sit(
        self, backbone: Backbone, velocity: Velocity, steps: int, renoises: bool = False
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Score, spread and seconds per image of a velocity in `steps` Euler steps, or jumps; and its pictures.

        Seconds are of sampling and decoding, in batches of 64; the prompts' encoding is not in them.
        """
        first, noise = slice(0, 64), self.noises[0]
        fresh = self.noises[1:steps] if renoises else None
        make_pictures(backbone, velocity, self.condition.select(first), noise[first], 1)  # warm up
        began = time.perf_counter()
        pictures = make_pictures(backbone, velocity, self.condition, noise, steps, fresh)
        seconds = (time.perf_counter() - began) / len(pictures)
        return self.judge(pictures) | {"seconds_per_image": seconds}, pictures

    def judge(self, pictures: Sequence[np.ndarray] | np.ndarray) -> dict[str, Any]:
        """What `judge` says of pictures of the captions."""
        return judge(self.captions, pictures)

    def judge_data(self, seed: int) -> dict[str, Any]:
        """The same for freshly drawn true pictures: what the best model could reach."""
        return self.judge(draw_pictures(self.captions, seed))


def judge(captions: Sequence[Caption], pictures: Sequence[np.ndarray] | np.ndarray) -> dict[str, Any]:
    """The score (each task and "overall") of a picture of each caption, its standard error, and how varied they are."""
    found = [parse(picture) for picture in pictures]
    records = [caption.metadata() for caption in captions]
    correct = [is_correct(figures, record) for figures, record in zip(found, records, strict=True)]
    told = {"score": summarize(records, correct), "error": standard_errors(records, correct), "n": len(records)}
    return told | {"spread": _variety(captions, found)}


def _variety(captions: Sequence[Caption], found: Sequence[list[Found]]) -> dict[str, float]:
    """`spread` of the figures found in a picture of each caption, and "color" where the caption leaves it open."""
    alone = [index for index, caption in enumerate(captions) if caption.task in SINGLE]
    varied = spread([found[index] for index in alone], [captions[index].text for index in alone])
    uncolored = [
        figures
        for figures, caption in zip(found, captions, strict=True)
        if all(request.color is None for request in caption.requests)
    ]
    varied["color"] = color_variety(uncolored)
    return varied


def evaluate_scenes(drawer: "Drawer", out: Path, per_task: int, seed: int, console: Console) -> Result | None:
    """Draw held-out captions, what is missing of them, into out/pictures, and judge them into out/result.json.

    None where pictures are left to other ranks.
    """
    captions = draw_captions(per_task, held_out=True, seed=seed)
    jobs = [Job(f"{index:05}.png", caption.text, seed + index) for index, caption in enumerate(captions)]
    if fill(out / "pictures", jobs, drawer, console, batch=64):
        return None
    said = judge(captions, [read_picture(out / "pictures" / job.path) for job in jobs])
    result = Result(
        benchmark="scenes",
        judge="apexgen.scenes.score, exact",
        model=f"{drawer.model.name} {drawer.name}",
        evaluations=drawer.evaluations,
        scores=said["score"] | {f"spread {name}": value for name, value in said["spread"].items()},
        spread=said["error"],
        n=said["n"],
        seeds=tuple(job.seed for job in jobs),
        settings={"per_task": per_task, "captions_seed": seed},
        drawn=drawer.settings(),
    )
    save_result(result, out / "result.json")
    return result
