"""The world of scenes: LoRAs of the embedded pipeline, each a run of its own that resumes, judged exactly."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console

from apexgen.compare.contest import SETTLED, Judgement, World
from apexgen.config import Data, Run, validate
from apexgen.cost import Cost, arithmetic, most_held
from apexgen.data import Batches
from apexgen.distill import distill, open_backbone, open_student
from apexgen.encode import encode
from apexgen.evaluate.scenes import Examination
from apexgen.generate import draw_noise
from apexgen.objectives import Objective, described
from apexgen.progress import working
from apexgen.train import Trainer, descend
from apexgen.velocities import Velocity, guided

GUIDANCE = 3.0  # of the teacher that is judged
EXAMINATION_SEED = 2_000_000  # far from the training draws and from the demo's
COUNTED = 8  # the batch on which a step is counted: of an eighth of it, which pairs take, one row


class Scenes(World):
    """Held-out captions of the six tasks; every training is a run in a folder of its own, NAME-SEED."""

    measures: ClassVar[dict[str, str]] = {
        "score": "the unweighted mean of the six tasks on held-out captions, higher is better",
        "places": "the mean distance of the figures in two pictures of one prompt, in shares of the side",
        "colors": "how often two pictures differ in color where the prompt leaves it open",
    }
    higher_is_better = True
    diversity = "places"
    evaluations = (1, 2, 4, 8)
    teacher_evaluations = (1, 4, 50)

    def __init__(self, folder: Path, settings: dict[str, Any], records: int, per_task: int, console: Console) -> None:
        self.folder, self.settings, self.records, self.console = folder, settings, records, console
        self.backbone = open_backbone(self._run("teacher", {"name": "flow_matching"}, 1, 0))
        self.examination = Examination.draw(self.backbone, per_task, EXAMINATION_SEED)
        self.null = self.backbone.encode_text([""])

    def _run(self, name: str, objective: dict[str, Any], steps: int, seed: int) -> Run:
        train = {"save_every": 200, "preview_every": steps} | self.settings | {"steps": steps, "seed": seed}
        table = {"objective": objective, "train": train, "data": {"limit": self.records}}
        return validate({"folder": str(self.folder / f"{name}-{seed}")} | table)

    @property
    def teacher(self) -> Velocity:
        self.backbone.precision = None
        return guided(self.backbone, self.null, GUIDANCE)

    @cached_property
    def corpus(self) -> Batches:
        """Training captions with a picture each, the same for all."""
        with working("drawing and encoding pictures"):
            return encode(Data(limit=self.records), self.backbone, pictures=True)

    def cost(self, objective: Objective, step: int = SETTLED) -> Cost:
        run = self._run("count", described(objective), 1, 0)
        run = run.model_copy(update={"train": run.train.model_copy(update={"batch": COUNTED})})
        backbone = open_backbone(run)
        backbone.precision = None  # casts are no arithmetic, and would be held
        trainer = Trainer(run, open_student(run, backbone), self.corpus, backbone.latent_shape())
        trainer.student.take_snapshot()
        batch, nets = self.corpus.batch(0, COUNTED, 0), trainer.student.nets()
        x = draw_noise(range(COUNTED), backbone.latent_shape())
        t = x.new_ones(COUNTED, 1, 1, 1)
        draw = trainer.objective.draw(tuple(x.shape), torch.Generator().manual_seed(0))
        forward = arithmetic(lambda: self.backbone(x, t, t, batch.c))
        run = lambda: descend(trainer.objective, nets, batch, draw, step)  # noqa: E731
        weights = [*backbone.network.parameters(), *trainer.student.trained.values(), *trainer.student.average.values()]
        return Cost(arithmetic(run) / forward, most_held(run, weights))

    def train(
        self, name: str, objective: Objective, steps: int, seed: int, watch: Callable[[int, Velocity], None]
    ) -> Velocity:
        run = self._run(name, described(objective), steps, seed)
        trainer, _ = distill(run, self.console, lambda trainer: watch(trainer.step, trainer.student.ema), self.corpus)
        trainer.student.backbone.precision = None
        return trainer.student.ema

    def judge(self, velocity: Velocity, steps: int, renoises: bool) -> Judgement:
        said, _ = self.examination.sit(self.backbone, velocity, steps, renoises)
        spread = said["spread"]
        return {"score": said["score"]["overall"], "places": spread["pairwise"], "colors": spread["color"]}
