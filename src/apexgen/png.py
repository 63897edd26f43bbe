"""A picture as a PNG file that says how it was made."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def to_png(picture: np.ndarray, said: Mapping[str, object]) -> bytes:
    """A PNG of a picture (H, W, 3) in [0, 1]; what is said of it stands in text chunks, one a name."""
    chunks = PngInfo()
    for name, value in said.items():
        chunks.add_itxt(name, str(value))  # UTF-8, as prompts are
    file = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()
