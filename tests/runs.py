"""Finished runs without the training, a configuration and a checkpoint of perturbed weights; cards of their exports."""

from pathlib import Path

from apexgen import checkpoint
from apexgen.config import dump_run, load_run
from apexgen.distill import open_backbone, open_student
from pipelines import SIZE
from small import perturb


def finished_run(folder: Path, pipeline: Path | str, *settings: str, deviation: float = 0.05, step: int = 7) -> Path:
    """Write a run of a pipeline's student to `folder`, its weights drawn at random; or one more checkpoint of it."""
    size = [] if pipeline == "scenes" else [f"model.size={SIZE}"]
    rank = [] if 'model.tune="full"' in settings else ["model.rank=2"]
    run = load_run(None, [f"folder={folder}", f"model.path={pipeline}", *size, *rank, *settings])
    student = open_student(run, open_backbone(run))
    perturb(student, deviation)
    state = checkpoint.State(step, student.trained, student.average, {})
    checkpoint.save(folder / "checkpoints", state, dump_run(run), keep=2)
    (folder / "config.toml").write_text(dump_run(run))
    return folder


def lines_of_card(base: Path, steps: int) -> str:
    """What the card of an export in this folder says, for another number of steps and with the base where it is."""
    code = Path("README.md").read_text().split("```")[1].removeprefix("python\n")
    return code.replace("steps = 1 ", f"steps = {steps} ").replace(repr(base.name), repr(str(base)))
