"""A stored picture's bytes to an array of the size that a model draws."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


@contextmanager
def opened_picture(stored: bytes) -> Iterator[Image.Image]:
    """A stored picture's header; what is wrong with it, or turns out inside to be, is a ValueError of one line."""
    if not stored:
        raise ValueError("the picture has no bytes")
    try:
        with Image.open(io.BytesIO(stored)) as opened:
            yield opened
    except UnidentifiedImageError:  # whose own words hold an address in memory, another one in every run
        raise ValueError("the picture can't be read: it is of no known format") from None
    except Exception as error:  # whatever it is: each format's decoder has errors of its own
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the picture can't be read: {why}") from None


def decode_picture(stored: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """The picture as (H, W, 3) float32 in [0, 1], upright; with a size (height, width), resized and centre-cropped.

    Alpha is laid over white; of an animation, the first frame. Raises ValueError for a file that is empty, cut short,
    no picture, or of more pixels than Pillow decodes, 179 million.
    """
    with opened_picture(stored) as opened:
        image = as_rgb(ImageOps.exif_transpose(opened))
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32) / 255


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB, as it is trained on and judged: alpha over white, sixteen bits of grey as eight."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):  # Pillow's own conversion clips these instead of scaling
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
