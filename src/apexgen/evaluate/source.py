"""Where pictures come from and who judges them, told before either model is opened: one at a time fits a machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from apexgen.evaluate.endpoint import Endpoint
from apexgen.evaluate.gallery import Job, fill, read_manifest
from apexgen.evaluate.judge import Judge
from apexgen.evaluate.result import Result, save_result
from apexgen.evaluate.vlm import find_vlm, open_vlm


@dataclass(frozen=True)
class Source:
    """Pictures that a model draws into `out`, or that are there already."""

    out: Path  # where the result goes
    model: str | None = None  # a run's folder, a pipeline's, or "scenes"
    lora: Path | None = None
    checkpoint: str = "latest"  # of a run
    steps: int | None = None
    guidance: float | None = None
    pictures: Path | None = None  # others' pictures
    name: str | None = None  # of who drew those

    def check(self) -> None:
        """ValueError where neither or both are given, or an option would do nothing."""
        if (self.model is None) == (self.pictures is None):
            raise ValueError("name a model, or the pictures it drew: --pictures FOLDER")
        chosen = None if self.checkpoint == "latest" else self.checkpoint
        unused = {"--lora": self.lora, "--checkpoint": chosen, "--steps": self.steps, "--guidance": self.guidance}
        for option, value in unused.items() if self.pictures else {"--name": self.name}.items():
            if value is not None:
                raise ValueError(
                    f"{option} does nothing {'with' if self.pictures else 'without'} --pictures; leave it out"
                )
        if self.pictures is not None and not self.pictures.exists():
            raise ValueError(f"--pictures {self.pictures}: no such folder")

    @property
    def folder(self) -> Path:
        """Of the pictures."""
        return self.pictures or self.out / "pictures"

    def draw(self, jobs: Sequence[Job], console: Console) -> bool:
        """Draw what is missing; False where some is left to other ranks."""
        from apexgen.drawer import open_model
        from apexgen.progress import working

        if self.model is None:
            return True
        with working("opening the model"):
            model = open_model(self.model, self.lora, checkpoint=self.checkpoint)
        drawer = model.drawer(self.steps or 1, 1.0 if self.guidance is None else self.guidance)
        left = fill(self.folder, jobs, drawer, console)
        del drawer, model
        torch.cuda.empty_cache()
        return not left

    def conclude(self, result: dict[str, Any]) -> Result:
        """The result, completed by who drew, and saved as result.json."""
        told = read_manifest(self.folder) if self.folder.is_dir() else {}
        drew = self.name or (f"{told['model']} {told['drawer']}" if told else self.folder.stem)
        evaluations = told["steps"] * (1 if told["guidance"] == 1 else 2) if told else None
        concluded = Result(model=drew, evaluations=evaluations, drawn=told, **result)
        save_result(concluded, self.out / "result.json")
        return concluded


@dataclass(frozen=True)
class Judging:
    """A judge to be opened: a model on this machine, or a server's address and its model's name."""

    judge: str
    model: str | None = None
    workers: int | None = None
    thinking: bool = True

    def check(self) -> None:
        """ValueError where there can't be such a judge; nothing is loaded or asked."""
        if self._is_address:
            self.open()
            return
        for option, value in {"--judge-model": self.model, "--workers": self.workers}.items():
            if value is not None:
                raise ValueError(f"{option} does nothing with a judge of this machine; leave it out")
        find_vlm(self.judge)

    def open(self) -> Judge:
        """The judge."""
        if not self._is_address:
            return open_vlm(self.judge)
        return Endpoint(self.judge, self.model or "", 8 if self.workers is None else self.workers, self.thinking)

    @property
    def _is_address(self) -> bool:
        return "://" in self.judge
