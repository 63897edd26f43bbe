"""GenEval's judge on a sweep's pictures: NUMBER-SEED.png of each record."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from apexgen.evaluate.geneval.judge import Judge, judge_pictures, scores
from apexgen.evaluate.geneval.run import Choice
from apexgen.rules import Record


@dataclass(frozen=True)
class Looks:
    """An opened judge."""

    name: str  # of its figure
    opened: Judge
    settings: dict[str, Any]  # what its figure depends on beside the prompts

    @classmethod
    def open(cls, choice: Choice) -> "Looks":
        """The judge that is chosen; ValueError, one line, for weights that can't be read."""
        judge, settings = choice.open()
        return cls(f"GenEval[{choice.kind}]", judge, settings | asdict(judge.selection))

    def judge(
        self, folder: Path, records: Sequence[Record], seeds: Sequence[int], console: Console
    ) -> tuple[dict[str, float], dict[str, float]] | None:
        """The mean over tasks and its standard error, of pictures that are there; None where other ranks judge still.

        Lines are kept in folder/geneval, so that a stopped judge goes on.
        """
        files = [(row, folder / f"{row:04d}-{seed}.png") for row in range(len(records)) for seed in seeds]
        weights = {name: self.settings[name] for name in ("kind", "detector", "clip")}
        pictures = [(file, records[row]) for row, file in files]
        lines = judge_pictures(folder / "geneval", pictures, self.opened, weights, console)
        if lines is None:
            return None
        told, spread = scores(lines)
        error = {self.name: spread["overall"]} if "overall" in spread else {}
        return {self.name: told["overall"]}, error
