"""A stored picture's bytes to an array of the size that a model draws."""

import io

import numpy as np
from PIL import Image, ImageOps

MOST_PIXELS = 1 << 28  # 16,384 x 16,384; more is refused before it is decoded


def decode_picture(stored: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """The picture as (H, W, 3) float32 in [0, 1], upright; with a size (height, width), resized and centre-cropped.

    Alpha is laid over white; of an animation, the first frame. Raises ValueError for a file that is empty, cut short,
    no picture, or of more than MOST_PIXELS.
    """
    if not stored:
        raise ValueError("the picture has no bytes")
    try:
        with Image.open(io.BytesIO(stored)) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(f"the picture has {opened.width} x {opened.height} pixels, more than {MOST_PIXELS:,}")
            image = _rgb(ImageOps.exif_transpose(opened))
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture can't be read: {error}") from None
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32) / 255


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):  # Pillow's own conversion clips these instead of scaling
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
