"""A source: records in a stable order, from wherever they are kept."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from apexgen.config import Data
from apexgen.data.record import Record


class Source(ABC):
    """Records in a stable order; str(source) says in one line what it is."""

    @abstractmethod
    def records(self, start: int = 0) -> Iterator[Record]:
        """The records from a position on: what `iter(source)` gives after `start` records."""

    def length(self) -> int | None:
        """How many records there are, where that is known without reading everything."""
        return None

    def __iter__(self) -> Iterator[Record]:
        return self.records()


def open_source(data: Data, pictures: bool = True) -> Source:
    """The source that the settings name; without pictures, theirs are not read and are None.

    Raises ValueError, one line, for a source that is missing, empty or of no known kind, and for an unknown column.
    """
    return _Plain(data, pictures)


class _Plain(Source):
    def __init__(self, data, pictures):
        from pathlib import Path

        self.data, self.pictures, self.path = data, pictures, Path(data.source)
        if data.source != "scenes" and not self.path.exists():
            raise ValueError(f'data.source = {data.source!r}: no such file or folder; or write data.source = "scenes"')
        if pictures and self.path.is_file():
            raise ValueError(
                f'data.source = {data.source!r} has no pictures and the objective needs them; name a folder of pictures with .txt captions, or write objective.anchor = "teacher"'
            )

    def length(self):
        return sum(1 for _ in self.records())

    def records(self, start=0):
        from itertools import islice

        return islice(self._all(), start, self.data.limit)

    def _all(self):
        import io
        import numpy as np
        from PIL import Image

        if self.data.source == "scenes":
            from apexgen.scenes.draw import draw_pictures
            from apexgen.scenes.prompts import TASKS, draw_captions

            captions = draw_captions(-(-(self.data.limit or 24_000) // len(TASKS)), held_out=False, seed=1)
            images = draw_pictures(captions, seed=1) if self.pictures else [None] * len(captions)
            for i, (caption, image) in enumerate(zip(captions, images)):
                stored = None
                if image is not None:
                    file = io.BytesIO()
                    Image.fromarray((image * 255).round().astype(np.uint8)).save(file, "png")
                    stored = file.getvalue()
                yield Record(str(i), (caption.text,), (1.0,), stored)
        elif self.path.is_dir():
            for file in sorted(self.path.iterdir()):
                if file.suffix in (".png", ".jpg"):
                    yield Record(
                        file.name,
                        (file.with_suffix(".txt").read_text().strip(),),
                        (1.0,),
                        file.read_bytes() if self.pictures else None,
                    )
        else:
            for i, line in enumerate(self.path.read_text().splitlines()):
                if line.strip():
                    yield Record(str(i), (line.strip(),), (1.0,), None)
