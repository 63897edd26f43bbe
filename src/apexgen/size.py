"""A picture's size: how it is written, and how it is held."""

import re
from typing import NamedTuple

FORM = re.compile(r"([1-9][0-9]{0,5})(?:x([1-9][0-9]{0,5}))?")


class Size(NamedTuple):
    """Height and width in pixels, in the order of arrays."""

    height: int
    width: int

    @classmethod
    def read(cls, written: object) -> "Size":
        """Of 1024, the side of a square, or "768x1024", width first; ValueError, one line, for anything else."""
        match = FORM.fullmatch(str(written))
        if match is None:
            raise ValueError(f"{written!r} is no size; write 1024 for a square, or 768x1024, width first")
        width, height = match[1], match[2] or match[1]
        return cls(int(height), int(width))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def written(self) -> int | str:
        """A square by its side, another one as WIDTHxHEIGHT."""
        return self.width if self.width == self.height else str(self)
