"""Sources that need no library: pictures with .txt captions, files of prompts, and the embedded world's scenes."""

import io
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from apexgen.data.base import Entry, Reader, Unreadable
from apexgen.data.skipped import Skipped

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
SCENES = 24_000  # drawn where no limit is given


class FolderSource(Reader):
    """Pictures in a folder and the folders in it, each with captions in a .txt file of its name, one a line."""

    def __init__(self, folder: Path, skipped: Skipped, pictures: bool) -> None:
        super().__init__(f"{folder}, a folder of pictures with .txt captions", skipped)
        self.folder, self.pictures = folder, pictures
        self.files = pictures_in(folder)

    def length(self) -> int:
        return len(self.files)

    def found(self) -> Iterator[Entry]:
        for file in self.files:
            key, captions = file.relative_to(self.folder).as_posix(), file.with_suffix(".txt")
            load = partial(read_picture, file) if self.pictures else nothing
            if not captions.is_file():
                yield Entry(key, [], load, f"it has no caption; write it to {captions.name}")
                continue
            try:
                yield Entry(key, caption_lines(captions.read_bytes()), load)
            except UnicodeDecodeError:
                yield Entry(key, [], load, f"{captions.name} is no UTF-8 text")
            except OSError as error:
                yield Entry(key, [], load, f"{captions.name} can't be read: {error.strerror}")


class PromptsSource(Reader):
    """A text file with one prompt a line; blank lines are passed over."""

    def __init__(self, file: Path, skipped: Skipped) -> None:
        super().__init__(f"{file}, a file of prompts", skipped)
        self.file = file

    def found(self) -> Iterator[Entry]:
        try:
            with self.file.open(encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield Entry(f"{self.file.name}:{number}", [(line, 1.0)], nothing)
        except UnicodeDecodeError:
            raise ValueError(f"{self.file} is neither UTF-8 text nor of a known kind") from None


class ScenesSource(Reader):
    """Training captions of the embedded world, as many of each task; with pictures, a fresh scene for each."""

    def __init__(self, limit: int | None, skipped: Skipped, pictures: bool) -> None:
        from apexgen.scenes.prompts import TASKS, draw_captions

        super().__init__("scenes, the embedded world", skipped)
        self.pictures = pictures
        self.captions = draw_captions(-(-(limit or SCENES) // len(TASKS)), held_out=False, seed=1)

    def length(self) -> int:
        return len(self.captions)

    def found(self) -> Iterator[Entry]:
        import numpy as np
        from PIL import Image

        from apexgen.scenes.draw import draw_scene
        from apexgen.scenes.world import Scene, render

        def stored(scene: Scene) -> bytes:
            file = io.BytesIO()
            Image.fromarray((render(scene) * 255).round().astype(np.uint8)).save(file, "png")
            return file.getvalue()

        random = np.random.default_rng(1)
        for number, caption in enumerate(self.captions):
            scene = draw_scene(caption, random) if self.pictures else None
            load = nothing if scene is None else lambda scene=scene: stored(scene)
            yield Entry(f"scene {number}", [(caption.text, 1.0)], load)


def read_picture(file: Path) -> bytes:
    """A picture's file. Unreadable where it is gone since it was found, or may not be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Unreadable(f"the picture can't be read: {error.strerror}") from None


def nothing() -> None:
    """The picture of a prompt alone."""


def caption_lines(text: bytes) -> list[tuple[str, float]]:
    """The lines of a caption file, drawn equally often. UnicodeDecodeError where it is no UTF-8."""
    return [(line, 1.0) for line in lines_of(text.decode("utf-8-sig"))]


def lines_of(text: str) -> list[str]:
    """The lines of a text as a file has them; `splitlines` also cuts at characters that prompts hold, as U+2028."""
    return re.split("\r\n?|\n", text)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder and the folders in it, by their names."""
    return [file for file in visible_in(folder) if file.suffix.lower() in PICTURE_ENDINGS and file.is_file()]


def visible_in(folder: Path) -> list[Path]:
    """The files in a folder and the folders in it, sorted; none that is hidden, or in a folder that is.

    Links to folders are followed, and each folder is read once, under its own name where it is inside.
    """
    found: list[Path] = []
    seen: set[str] = set()
    starts = [str(folder)]
    for start in starts:  # to which links are added as they are met
        for path, folders, files in os.walk(start):
            real = os.path.realpath(path)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts += [link for name in folders if os.path.islink(link := os.path.join(path, name))]
            found += [Path(path, name) for name in files if not name.startswith(".")]
    return sorted(found)
