"""Pictures in a folder, by category; and their features, computed once for each picture that is new or has changed."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from apexgen.data.files import visible_in
from apexgen.evaluate.features import Extractor
from apexgen.evaluate.gallery import digest_picture, open_picture, progress_bar
from apexgen.files import write_whole

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
CACHE = Path.home() / ".cache" / "apexgen" / "features"
SHARD = 256  # pictures whose features are one file: what a kill costs at most


@dataclass(frozen=True)
class Collection:
    """Files of pictures and the category of each, "" where there is none."""

    folder: Path
    names: tuple[str, ...]  # paths inside the folder
    categories: tuple[str, ...]

    def rows(self, category: str) -> Tensor:
        """Which pictures are of a category."""
        return torch.tensor([index for index, own in enumerate(self.categories) if own == category], dtype=torch.long)

    @property
    def files(self) -> list[Path]:
        """The paths of the pictures."""
        return [self.folder / name for name in self.names]


def find_pictures(folder: Path) -> Collection:
    """Every picture under a folder, in the order of their names; a subfolder's name is their category.

    Raises ValueError where there is no such folder, or no two pictures in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of pictures")
    files = [file.relative_to(folder) for file in visible_in(folder) if file.suffix.lower() in ENDINGS]
    if len(files) < 2:
        raise ValueError(f"{folder} holds {len(files)} pictures ({', '.join(ENDINGS)}); give a folder of at least two")
    categories = tuple(file.parts[0] if len(file.parts) > 1 else "" for file in files)
    return Collection(folder, tuple(file.as_posix() for file in files), categories)


def features_of(
    files: Sequence[Path], extractor: Extractor, cache: Path, console: Console, title: str, batch: int = 32
) -> Tensor:
    """The features (len(files), width) float32 of pictures, in their order.

    Kept in the cache by the content of the pictures, the weights and the resize, SHARD pictures a file: a change of one
    picture costs its shard, and so does a kill. Raises ValueError where a picture can't be read or its features are
    not finite.
    """
    cache.mkdir(parents=True, exist_ok=True)
    parts = []
    with progress_bar(console) as progress:
        task = progress.add_task(title, total=len(files))
        for start in range(0, len(files), SHARD):
            parts.append(_shard(files[start : start + SHARD], extractor, cache, batch))
            progress.advance(task, len(parts[-1]))
    return torch.cat(parts)


def _shard(files: Sequence[Path], extractor: Extractor, cache: Path, batch: int) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    key = json.dumps([extractor.identity, [digest_picture(file) for file in files]], sort_keys=True)
    kept = cache / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
    if kept.is_file():
        try:
            return load(kept.read_bytes())["features"]
        except (SafetensorError, KeyError):
            kept.unlink()  # damaged on the disk: computed again
    found = torch.cat(
        [_finite(extractor([open_picture(file) for file in part]), part) for part in _parts(files, batch)]
    )
    write_whole(kept, save({"features": found.contiguous()}))
    return found


def _parts(files: Sequence[Path], batch: int) -> Iterator[Sequence[Path]]:
    for start in range(0, len(files), batch):
        yield files[start : start + batch]


def _finite(features: Tensor, files: Sequence[Path]) -> Tensor:
    for row, file in zip(features, files, strict=True):
        if not row.isfinite().all():
            raise ValueError(f"{file}: its features are not finite; are the weights whole?")
    return features


def digest_of(files: Sequence[Path]) -> str:
    """SHA-256 of the contents of pictures in their order, 16 digits: what a result says of its reference."""
    total = hashlib.sha256()
    for file in files:
        total.update(digest_picture(file).encode())
    return total.hexdigest()[:16]


def prompts_of(pictures: Collection) -> list[str]:
    """The prompt that each picture was drawn from, which a gallery's pictures carry; ValueError where one has none."""
    prompts = []
    for file in pictures.files:
        with Image.open(file) as picture:
            prompt = picture.info.get("prompt")
        if not prompt:
            raise ValueError(f"{file} does not hold its prompt; give a folder that apexgen drew")
        prompts.append(str(prompt))
    return prompts
