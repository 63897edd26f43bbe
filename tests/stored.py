"""Pictures and archives as they lie on a disk, for the tests of sources."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def stored(image: Image.Image, kind: str = "png", **options) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(number: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """A picture unlike that of every other number."""
    values = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return stored(Image.fromarray(values))


def write_folder(folder: Path, captions: dict[str, str]) -> None:
    """Pictures with .txt captions, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, caption) in enumerate(captions.items()):
        (folder / f"{name}.png").write_bytes(picture(number))
        (folder / f"{name}.txt").write_text(caption, encoding="utf-8")


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    """A tar of files, in their order; names are not checked."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
