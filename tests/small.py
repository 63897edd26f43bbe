"""Small real things for the tests of models and stages: a tiny SANA, opened fresh, and short runs of it."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import finalize

import torch

from apexgen.backbones.diffusion import load_backbone
from apexgen.config import Run, load_run
from apexgen.demo import CONFIG
from apexgen.distill import open_backbone, open_student
from apexgen.encode import encode
from apexgen.export.diffusers import open_exported
from apexgen.export.proof import difference, take_proof
from apexgen.scenes.pipeline import FOLDER
from apexgen.shard import like
from apexgen.student import Student
from apexgen.train import Trainer, open_objective
from pipelines import SIZE, SQUARE, build

SHORT = (
    "train.steps=4",
    "train.batch=2",
    "train.save_every=2",
    "train.preview_every=4",
    "train.preview_prompts=1",
    "objective.warmup=1",
    "data.limit=12",
    "model.precision=float32",
    "model.weights=float32",
)

EMBEDDED = ("model.path=scenes",)  # for a run, where it matters which pipeline it is of

BUILD = (  # a pipeline from nothing
    "autoencoder_pictures=12",
    "autoencoder_steps=2",
    "autoencoder_batch=2",
    "decoder_steps=2",
    "text_steps=2",
    "flow_pictures=100",
    "flow_steps=2",
    "flow_batch=2",
)


@cache
def tiny() -> Path:
    """A pipeline of the embedded one's family with short steps; it lasts as long as the process."""
    folder = TemporaryDirectory()
    finalize(tiny, folder.cleanup)
    return build("sana", Path(folder.name))


def backbone():
    net = load_backbone(tiny())
    net.size = SQUARE
    return net


def embedded():
    return load_backbone(FOLDER)


def place(*overrides: str) -> tuple[str, ...]:
    """The tiny pipeline's settings, unless these name another."""
    named = any(override.startswith("model.path=") for override in overrides)
    return () if named else (f"model.path={tiny()}", f"model.size={SIZE}")


def short_run(folder: Path, *overrides: str) -> Run:
    return load_run(CONFIG, [f"folder={folder}", *place(*overrides), *SHORT, *overrides])


def trainer(folder: Path, *overrides: str) -> Trainer:
    run = short_run(folder, *overrides)
    net = open_backbone(run)
    corpus = encode(run.data, net, pictures=False)
    return Trainer(run, open_student(run, net), corpus, net.latent_shape())


def trainer_of(name: str, *overrides: str) -> Trainer:
    """Three steps of any objective, with pictures where it needs them."""
    settings = ("data.limit=12", "train.steps=3", "train.batch=2", "model.precision=float32", f"objective.name={name}")
    run = load_run(None, [*place(*overrides), *settings, *overrides])
    net = open_backbone(run)
    corpus = encode(run.data, net, open_objective(run).needs_pictures)
    return Trainer(run, open_student(run, net), corpus, net.latent_shape())


def perturb(student: Student, deviation: float = 0.05) -> None:
    """Give the student weights unlike the teacher's, and an average unlike both."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensors in (student.weights, student.average):
            for tensor in tensors.values():
                tensor += like(deviation * torch.randn(tensor.shape, generator=generator), tensor)


def inputs(net, rows: int = 3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, *net.latent_shape(), generator=generator)
    t = torch.rand(rows, 1, 1, 1, generator=generator)
    c = net.encode_text(["a red circle", "two rings", "a photo of a white cross"][:rows])
    return x, t, c


def compare(student, folder, base, prompts, noise, steps):
    """The largest difference, in [0, 1], of a pixel of our sampler's pictures and the stock pipeline's."""
    proof = take_proof(student, prompts, noise, [steps])
    return difference(proof, open_exported(folder, base, student.backbone.task_lora))
