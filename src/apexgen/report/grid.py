"""A grid of pictures: a row for each prompt, a column for each way of drawing it."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 128  # largest side of a picture, px
GAP, HEAD, CAPTION = 6, 30, 190  # between cells; the labels' row; the prompts' column; px
LETTERS = 25  # of a prompt, a line
LINES = 6  # of a prompt; the rest is cut
INK, PAPER = (28, 30, 38), (255, 255, 255)


def picture_grid(prompts: Sequence[str], columns: dict[str, np.ndarray]) -> Image.Image:
    """Draw the grid: prompts at the left, the names of the columns above.

    columns: name -> pictures (len(prompts), H, W, 3) float in [0, 1], all of one size; small ones
    are scaled up by a whole factor, large ones down to 128 px. Raises ValueError when a column has
    another number of pictures than there are prompts.
    """
    check_columns(prompts, columns)
    drawn = {name: [to_cell(picture) for picture in pictures] for name, pictures in columns.items()}
    width, height = next(iter(drawn.values()))[0].size
    size = (
        CAPTION + len(drawn) * (width + GAP) + GAP,
        HEAD + len(prompts) * (height + GAP) + GAP,
    )
    grid = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(size=14)
    for row, prompt in enumerate(prompts):
        lines = textwrap.wrap(prompt, LETTERS, max_lines=LINES, placeholder=" ...")
        middle = HEAD + row * (height + GAP) + height // 2
        pen.multiline_text((GAP, middle), "\n".join(lines), INK, font, anchor="lm", spacing=5)
    for column, (name, cells) in enumerate(drawn.items()):
        left = CAPTION + column * (width + GAP)
        pen.text((left + width // 2, HEAD // 2), name, INK, font, anchor="mm")
        for row, cell in enumerate(cells):
            grid.paste(cell, (left, HEAD + row * (height + GAP)))
    return grid


def check_columns(prompts: Sequence[str], columns: dict[str, np.ndarray]) -> None:
    """ValueError unless every column has a picture for each prompt, all of one size."""
    if not prompts or not columns:
        raise ValueError("a grid needs at least one prompt and one column of pictures")
    for name, pictures in columns.items():
        if len(pictures) != len(prompts):
            raise ValueError(f"column {name!r} has {len(pictures)} pictures for {len(prompts)} prompts")
    sizes = {pictures.shape[1:] for pictures in columns.values()}
    if len(sizes) > 1:
        raise ValueError(f"the columns' pictures differ in size: {sorted(sizes)}")


def to_cell(picture: np.ndarray) -> Image.Image:
    """A picture (H, W, 3) in [0, 1] at a size to look at; non-finite pixels are black."""
    finite = np.nan_to_num(picture, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    image = Image.fromarray((finite * 255).round().astype(np.uint8))
    longest = max(image.size)
    if longest > CELL:
        return image.resize((image.width * CELL // longest, image.height * CELL // longest))
    factor = CELL // longest
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def cells(grid: np.ndarray, columns: int) -> list[np.ndarray] | None:
    """The pictures of a grid (H, W, 3) that was drawn with so many columns: of each, (prompts, side, side, 3).

    None where it was drawn otherwise, or its pictures are not square.
    """
    height, width, _ = grid.shape
    across, left = divmod(width - CAPTION - GAP, columns)
    side = across - GAP
    if left or side < 1 or (height - HEAD - GAP) % across:
        return None
    rows = (height - HEAD - GAP) // across
    return [
        np.stack([
            grid[HEAD + row * across : HEAD + row * across + side, CAPTION + column * across :][:, :side]
            for row in range(rows)
        ])
        for column in range(columns)
    ]  # fmt: skip
