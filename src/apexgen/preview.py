"""The same prompts and noises drawn as training goes: teacher in many steps, student in 1, 2 and 4."""

from pathlib import Path

import numpy as np
from torch import Tensor

from apexgen.condition import Condition
from apexgen.generate import draw_noises, make_pictures
from apexgen.objectives import Objective
from apexgen.report import picture_grid
from apexgen.student import Student
from apexgen.train import Trainer

PREVIEW_STEPS, STUDENT_STEPS = 16, (1, 2, 4)  # of the columns in previews


class Preview:
    """A run's previews, each a file of the folder; the teacher's pictures are drawn once."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.folder = trainer, folder
        self.prompts, self.condition = trainer.corpus.examples(trainer.run.train.preview_prompts)
        self.noises = draw_noises(range(len(self.prompts)), trainer.shape, max(STUDENT_STEPS))
        backbone = trainer.student.backbone
        self.teacher = make_pictures(backbone, trainer.teacher, self.condition, self.noises[0], PREVIEW_STEPS)

    def draw(self, step: int) -> None:
        """All processes draw, as a sharded network needs them all, and the first writes."""
        columns = {f"teacher@{PREVIEW_STEPS}": self.teacher} | {
            f"student@{steps}": draw_student(
                self.trainer.objective, self.trainer.student, self.condition, self.noises[:steps]
            )
            for steps in STUDENT_STEPS
        }
        self.trainer.team.by_first(lambda: self._save(columns, step))

    def _save(self, columns: dict[str, np.ndarray], step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        picture_grid(self.prompts, columns).save(self.folder / f"step-{step:06d}.png")


def draw_student(objective: Objective, student: Student, c: Condition, noises: Tensor) -> np.ndarray:
    """Pictures of the averaged student in as many steps as there are noises for each condition, (steps, B, C, h, w)."""
    fresh = noises[1:] if objective.renoises else None
    return make_pictures(student.backbone, student.ema, c, noises[0], len(noises), fresh)
