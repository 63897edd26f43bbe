"""A folder of pictures to be judged: what is there is not drawn again, and it holds one model's pictures alone.

Every picture carries its prompt and seed, and manifest.json says who drew; so a kill costs one batch, and pictures of
another model, other settings or other prompts are refused, not mixed in.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from apexgen.data.picture import as_rgb
from apexgen.files import write_whole
from apexgen.parallel import take_place
from apexgen.png import to_png
from apexgen.progress import columns

if TYPE_CHECKING:
    from apexgen.drawer import Drawer

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Job:
    """A picture to draw."""

    path: str  # of the .png, inside the gallery's folder
    prompt: str
    seed: int


def fill(folder: Path, jobs: Sequence[Job], drawer: "Drawer", console: Console, batch: int = 8) -> int:
    """Draw the jobs that are not done yet, in batches; returns how many are left to other ranks.

    Of several processes that torchrun started each draws its own share.
    Raises ValueError, before anything is drawn, where the folder holds pictures of another model, of other settings,
    or of another prompt or seed at a job's path.
    """
    team = take_place()
    if len({job.path for job in jobs}) < len(jobs):
        raise ValueError(f"{folder}: two jobs have the same path")
    claim(folder, drawer.settings(), team.rank)
    share = jobs[team.rank :: team.count]
    left = [job for job in share if not is_drawn(folder, job)]
    with progress_bar(console) as progress:
        task = progress.add_task(f"drawing with {drawer.name}", total=len(share), completed=len(share) - len(left))
        for start in range(0, len(left), batch):
            chosen = left[start : start + batch]
            pictures = drawer.draw([job.prompt for job in chosen], [job.seed for job in chosen])
            for job, picture in zip(chosen, pictures, strict=True):
                write_picture(folder / job.path, picture, job)
            progress.advance(task, len(chosen))
    return sum(not (folder / job.path).is_file() for job in jobs) if team.count > 1 else 0


def of_rank(file: Path, rank: int) -> Path:
    """The file that a rank adds to: the file itself for the first, NAME-RANK for others."""
    return file.with_stem(f"{file.stem}-{rank}") if rank else file


def of_ranks(file: Path) -> list[Path]:
    """What all ranks have written."""
    return sorted(file.parent.glob(f"{file.stem}*{file.suffix}"))


def claim(folder: Path, settings: dict[str, Any], rank: int = 0) -> None:
    """Write who draws into an empty folder; ValueError where another did, or pictures are there and none says who."""
    manifest, settings = folder / MANIFEST, json.loads(json.dumps(settings))
    if manifest.is_file():
        before = read_manifest(folder)
        for key in before.keys() | settings.keys():
            if before.get(key) != settings.get(key):
                raise ValueError(
                    f"{folder} holds pictures of {key} = {before.get(key)!r}, not {settings.get(key)!r}; "
                    "give another folder"
                )
        return
    if next(folder.rglob("*.png"), None) is not None:
        raise ValueError(f"{folder} holds pictures and no {MANIFEST} that says who drew them; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f"manifest-{rank}.json"  # ranks write at once, and the same
    write_whole(own, (json.dumps(settings, indent=1) + "\n").encode())
    own.replace(manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Who drew a gallery's pictures, Drawer.settings(); empty for others' pictures. ValueError if broken."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return {}
    try:
        content = json.loads(manifest.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{manifest} is broken; remove the folder to begin again")
    return content


def is_drawn(folder: Path, job: Job) -> bool:
    """Whether a job's picture is there; ValueError where it is of another prompt or seed."""
    file = folder / job.path
    if not file.is_file():
        return False
    try:
        with Image.open(file) as picture:
            told = picture.info.get("prompt"), picture.info.get("seed")
            picture.load()
    except (OSError, SyntaxError, ValueError):
        return False  # cut short by a copy, not by us: drawn again
    for name, before, now in zip(("prompt", "seed"), told, (job.prompt, str(job.seed)), strict=True):
        if before != now:
            raise ValueError(f"{file} is of {name} {before!r}, not {now!r}; give another folder")
    return True


def write_picture(file: Path, picture: np.ndarray, job: Job) -> None:
    """Write a picture (H, W, 3) in [0, 1] as PNG, whole or not at all. ValueError where it is not finite."""
    if not np.isfinite(picture).all():
        raise ValueError(f"{file}: the model drew values that are not finite for {job.prompt!r}, seed {job.seed}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, to_png(picture, {"prompt": job.prompt, "seed": job.seed}))


def read_seeds(files: Sequence[Path]) -> tuple[int, ...]:
    """The seeds that pictures say they were drawn from, each once, sorted; none where one does not say."""
    seeds = set()
    for file in files:
        with Image.open(file) as picture:
            told = str(picture.info.get("seed"))
        if not told.isdecimal():
            return ()
        seeds.add(int(told))
    return tuple(sorted(seeds))


def read_pictures(files: Sequence[Path], batch: int = 64) -> Iterator[np.ndarray]:
    """Pictures (B, H, W, 3) float32 in [0, 1], `batch` files at once; those of a batch are of one size."""
    for start in range(0, len(files), batch):
        yield np.stack([read_picture(file) for file in files[start : start + batch]])


def read_picture(file: Path) -> np.ndarray:
    """A picture (H, W, 3) float32 in [0, 1]; ValueError where the file is missing or no picture."""
    return np.asarray(open_picture(file), dtype=np.float32) / 255


def open_picture(file: Path) -> Image.Image:
    """A picture as `as_rgb` has it, of any mode and size; ValueError, one line: it is missing, broken, or a bomb."""
    try:
        with Image.open(file) as picture:
            return as_rgb(picture)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: no picture that can be read ({type(error).__name__}); mend or remove it") from None


def digest_picture(file: Path) -> str:
    """SHA-256 of a picture's file; ValueError where there is none."""
    if not file.is_file():
        raise ValueError(f"{file}: no such picture")
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def progress_bar(console: Console) -> Progress:
    """How far a benchmark is."""
    return Progress(*columns(), console=console)
