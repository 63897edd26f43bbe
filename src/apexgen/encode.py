"""From a source of prompts, or of pictures with captions, to a Corpus in memory.

Sources: "scenes", the embedded world; a text file with one prompt a line; a folder of pictures, each with a .txt
caption of the same name.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.config import Data
from apexgen.data import Corpus, index_prompts
from apexgen.generate import to_tensor

CHUNK = 256  # prompts or pictures encoded at once
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def encode(data: Data, backbone: Backbone, pictures: bool) -> Corpus:
    """Read a source and encode it: prompts, and pictures where they are asked for.

    Raises ValueError for a source that is missing, empty, or without pictures where they are needed.
    """
    prompts, images = _read(data, pictures)
    distinct, rows = index_prompts(prompts)
    conditions = backbone.encode_text_in_chunks(distinct, CHUNK)
    null = backbone.encode_text([""])
    return Corpus(distinct, conditions, rows, null, encode_pictures(backbone, images) if images else None)


def probe_prompts(path: str, file: Path | None) -> list[str]:
    """Prompts to try a model with: a file's, one a line; the embedded model may have its own world's.

    ValueError where the file is missing or empty, or needed and not given.
    """
    if file is None:
        if path != "scenes":
            raise ValueError("--prompts is missing: name a file with one prompt a line")
        return _scenes(12, pictures=False)[0]
    if not file.is_file():
        raise ValueError(f"--prompts {file}: no such file; write one prompt a line into it")
    return _prompts_in(file, None, f"--prompts {file}")


def given_prompts(prompts: Sequence[str], file: Path | None) -> list[str]:
    """The prompts of --prompt, then those of the file of --prompts; ValueError for none, or an empty one."""
    named = check_prompts(prompts, "--prompt") if prompts or file is None else []
    return named if file is None else named + probe_prompts("", file)


def count_records(data: Data) -> int:
    """How many records a source has; ValueError for one that is missing or empty."""
    if data.source != "scenes" and Path(data.source).is_dir():
        return len(_pictures_in(Path(data.source), data.limit))
    return len(_read(data, pictures=False)[0])


def check_prompts(prompts: Sequence[str], origin: str) -> list[str]:
    """The prompts without surrounding blanks; ValueError when there are none, or one is empty."""
    cleaned = [prompt.strip() for prompt in prompts]
    if not cleaned or not all(cleaned):
        raise ValueError(f"{origin}: a prompt is empty; write at least a word")
    return cleaned


def _read(data: Data, pictures: bool) -> tuple[list[str], list[np.ndarray]]:
    if data.source == "scenes":
        prompts, images = _scenes(data.limit, pictures)
    elif Path(data.source).is_dir():
        prompts, images = _folder(Path(data.source), data.limit)
    elif Path(data.source).is_file():
        prompts, images = _prompts_in(Path(data.source), data.limit, data.source), []
    else:
        raise ValueError(f'data.source = {data.source!r}: no such file or folder; or write data.source = "scenes"')
    if pictures and not images:
        raise ValueError(
            f"data.source = {data.source!r} has no pictures and the objective needs them; name a folder of "
            'pictures with .txt captions, or write objective.anchor = "teacher"'
        )
    return prompts, images


def _prompts_in(file: Path, limit: int | None, origin: str) -> list[str]:
    """The prompts of a file's first lines, one a line; blank ones are passed over."""
    return check_prompts([line for line in file.read_text().splitlines()[:limit] if line.strip()], origin)


def _scenes(limit: int | None, pictures: bool) -> tuple[list[str], list[np.ndarray]]:
    """Training captions, as many of each task; with pictures, a fresh scene for each."""
    from apexgen.scenes.draw import draw_pictures
    from apexgen.scenes.prompts import TASKS, draw_captions

    captions = draw_captions(-(-(limit or 24_000) // len(TASKS)), held_out=False, seed=1)
    images = list(draw_pictures(captions, seed=1)) if pictures else []
    return [caption.text for caption in captions], images


def _folder(folder: Path, limit: int | None) -> tuple[list[str], list[np.ndarray]]:
    files = _pictures_in(folder, limit)
    missing = [file.name for file in files if not file.with_suffix(".txt").is_file()]
    if missing:
        raise ValueError(f"{folder}: {missing[0]} has no caption; write it to {Path(missing[0]).with_suffix('.txt')}")
    prompts = check_prompts([file.with_suffix(".txt").read_text() for file in files], str(folder))
    return prompts, [np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255 for file in files]


def _pictures_in(folder: Path, limit: int | None) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.suffix.lower() in PICTURE_ENDINGS][:limit]


def encode_pictures(backbone: Backbone, images: Sequence[np.ndarray]) -> Tensor:
    """Latents of pictures (H, W, 3) in [0, 1]; ValueError when they differ in size, or from what the backbone draws."""
    sizes = {image.shape for image in images}
    if len(sizes) != 1:
        raise ValueError(f"the pictures have {len(sizes)} sizes; resize them all to one")
    height, width, _ = next(iter(sizes))
    if backbone.latent_shape(height, width) != backbone.latent_shape():
        raise ValueError(
            f"the pictures are {height} x {width} pixels and the model draws another size; "
            f"write model.size = {height}, or resize them"
        )
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    return torch.cat([backbone.encode_image(to_tensor(np.stack(chunk)).to(backbone.device)).cpu() for chunk in chunks])
