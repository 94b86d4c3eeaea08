"""All thumbnails as one PNG: what is seen where nothing can run, as on GitHub or in a notebook that is not trusted."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from ._packing import largest_in_cells
from ._shown import Shown

__all__ = ["picture_of"]

WIDTH = 1100  # pixels, more only for many heads
HEIGHT = 0.6  # of the width, at most
CELLS = (18, 64)  # smallest and largest picture of a head
GAP = 2
MARGIN = 34  # for the names of layers and heads
LEVELS = 64
BLUE = (0, 68, 136)  # the colour of weight 1; weight 0 is white


def picture_of(shown: Shown, grid: tuple[int, int]) -> bytes:
    """A PNG of every head's thumbnail, layers down and heads across, on one prompt.

    A cell is the largest weight of what it stands for; colours are those of the square root, so that weak stripes are
    seen too. Layers are set side by side where there are many more of them than heads.
    """
    n_layers, n_heads = grid
    columns, side = _columns_and_side(n_layers, n_heads)
    rows = -(-n_layers // columns)
    step = side + GAP
    across = MARGIN + n_heads * step
    image = Image.new("P", (columns * across, MARGIN // 2 + rows * step), 0)
    image.putpalette(_palette())
    draw = ImageDraw.Draw(image)
    for layer in range(n_layers):
        column, row = divmod(layer, rows)
        left, top = column * across + MARGIN, MARGIN // 2 + row * step
        draw.text((left - MARGIN + 2, top + side // 2 - 6), f"L{layer}", fill=LEVELS)
        for head in range(n_heads):
            if row == 0:
                draw.text((left + head * step, 1), f"H{head}", fill=LEVELS)
            cell = _levels(shown.thumbnails[layer * n_heads + head], side)
            image.paste(Image.fromarray(cell), (left + head * step, top))
            draw.rectangle(
                (left + head * step - 1, top - 1, left + head * step + side, top + side), outline=LEVELS + 1
            )
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _columns_and_side(n_layers: int, n_heads: int) -> tuple[int, int]:
    """The fewest columns of layers with which the picture fits a screen, and the side of a head."""
    for columns in range(1, n_layers + 1):
        side = (WIDTH // columns - MARGIN) // n_heads - GAP
        side = min(max(CELLS[0], side), CELLS[1])
        width = columns * (MARGIN + n_heads * (side + GAP))
        if -(-n_layers // columns) * (side + GAP) <= HEIGHT * width:
            return columns, side
    return n_layers, CELLS[0]


def _levels(thumbnail: np.ndarray, side: int) -> np.ndarray:
    """A thumbnail as `[side, side]` of palette entries: pooled where it is larger, repeated where smaller."""
    n = len(thumbnail)
    if n > side:
        thumbnail, n = largest_in_cells(thumbnail, side), side
    shown = thumbnail[np.ix_(np.arange(side) * n // side, np.arange(side) * n // side)]
    return np.rint(np.sqrt(shown / 255) * (LEVELS - 1)).astype(np.uint8)


@cache
def _palette() -> list[int]:
    shades = np.linspace(0, 1, LEVELS)[:, None]
    colours = np.rint(255 + shades * (np.array(BLUE) - 255)).astype(int).ravel().tolist()
    return [*colours, 40, 40, 40, 215, 215, 215]
