"""The student looked over while it trains: the average in one step, on the same prompts and noises every time.

Noises have generators of their own: training is the same, bit for bit, with it or without.
"""

import torch
from torch import Tensor

from apexgen.condition import Condition
from apexgen.config import Run
from apexgen.generate import draw_noise, to_pictures
from apexgen.rules import TASKS
from apexgen.sample import generate
from apexgen.scenes.prompts import Caption, draw_captions
from apexgen.scenes.score import score
from apexgen.train import Trainer
from apexgen.velocities import Velocity

NOISES = 2  # of each prompt
TEACHER_STEPS = 8
SEED = 2_000_000  # of captions and noises, far from training's


class Checkup:
    """What the student makes of some prompts in one step, beside what its teacher makes of the same noises."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.backbone = trainer, trainer.student.backbone
        self.captions: list[Caption] = []  # where the embedded world's judge can say what is right
        self.condition = self._choose(trainer.run.train.evaluate_prompts or 1)
        self.noise = draw_noise(range(SEED, SEED + len(self.condition)), trainer.shape)
        self.teacher = self._draw(trainer.teacher, TEACHER_STEPS)

    def _choose(self, count: int) -> Condition:
        """The prompts' conditions, a row for each noise: held-out captions of the embedded world, else the data's."""
        if is_judged(self.trainer.run):
            tasks = {task: len(range(place, count, len(TASKS))) for place, task in enumerate(TASKS)}
            self.captions = [caption for caption in draw_captions(tasks, True, SEED) for _ in range(NOISES)]
            return self.backbone.encode_text([caption.text for caption in self.captions])
        prompts, c = self.trainer.corpus.examples(count)
        return c.select(torch.arange(len(prompts)).repeat_interleave(NOISES))

    def take(self) -> dict[str, float]:
        """Statistics of the one-step samples, as latents.

        one_step_mean, one_step_deviation: of all their numbers; one_step_diversity: the mean distance of two samples of
        a prompt, over the teacher's: 0 is collapse; one_step_distance: from the teacher's samples, few-step, guided, of
        the same noises. Distances are roots of mean squares. one_step_score: the embedded world's, a share of 1.
        """
        made = self._draw(self.trainer.student.ema, 1)
        said = {
            "one_step_mean": float(made.mean()),
            "one_step_deviation": float(made.std()),
            "one_step_distance": float((made - self.teacher).square().mean().sqrt()),
        }
        if teachers := _diversity(self.teacher):  # of a teacher that is collapsed itself, there is no share
            said["one_step_diversity"] = _diversity(made) / teachers
        return said | ({"one_step_score": self._score(made)} if self.captions else {})

    def _draw(self, velocity: Velocity, steps: int) -> Tensor:
        """Latents (prompts x NOISES, C, h, w), as many at once as training has."""
        device, drawn = self.backbone.device, []
        for rows in torch.arange(len(self.noise)).split(self.trainer.run.train.batch):
            c = self.condition.select(rows).to(device)
            drawn.append(generate(velocity, c, self.noise[rows].to(device), steps).float())
        return torch.cat(drawn)

    def _score(self, latents: Tensor) -> float:
        pictures = to_pictures(self.backbone.decode(latents))
        return score(pictures, [caption.metadata() for caption in self.captions])["overall"]


def is_judged(run: Run) -> bool:
    """Whether the embedded world's exact judge reads the pictures of a run's model."""
    return run.model.path == "scenes" and run.model.size is None


def _diversity(latents: Tensor) -> float:
    first, second = latents.unflatten(0, (-1, NOISES)).unbind(1)
    return float((first - second).square().flatten(1).mean(1).sqrt().mean())
