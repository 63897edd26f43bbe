"""Finished runs without the training: a folder with a configuration and one checkpoint of perturbed weights."""

from pathlib import Path

from apexgen import checkpoint
from apexgen.config import dump_run, load_run
from apexgen.distill import open_backbone, open_student
from pipelines import SIZE
from small import perturb


def finished_run(folder: Path, pipeline: Path | str, *settings: str, deviation: float = 0.05) -> Path:
    """Write a run of a pipeline's student to `folder`, its weights drawn at random."""
    size = [] if pipeline == "scenes" else [f"model.size={SIZE}"]
    rank = [] if 'model.tune="full"' in settings else ["model.rank=2"]
    run = load_run(None, [f"folder={folder}", f"model.path={pipeline}", *size, *rank, *settings])
    student = open_student(run, open_backbone(run))
    perturb(student, deviation)
    state = checkpoint.State(7, student.trained, student.average, {})
    checkpoint.save(folder / "checkpoints", state, dump_run(run), keep=1)
    (folder / "config.toml").write_text(dump_run(run))
    return folder
