"""Small pictures for people: of the photo, and of the model's evidence for a class, to be laid over it."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from clothing_classifier.resizing import Resizing

SIDE: Final = 64
"""Pixels of the picture's longer side."""


def draw_evidence(evidence: npt.NDArray[np.float32], resizing: Resizing, width: int, height: int) -> bytes:
    """Draw evidence as a PNG of the photo's own proportions.

    Args:
        evidence: ``float32 [h, w]`` over the model's input, as `clothing_classifier.classifier.Output` has it.
        resizing: the card's.
        width: columns of the input that are the photo, in the middle; the rest is filled.
        height: rows of the input that are the photo.

    Returns:
        An 8-bit greyscale PNG, its longer side `SIDE` pixels: 255 speaks most for the class and 0 least, within the
        photo.
    """
    rows, columns = evidence.shape
    across, down = columns * width / resizing.width, rows * height / resizing.height
    left, top = (columns - across) / 2, (rows - down) / 2
    scale = SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Cells that are all filling go first: interpolation looks beyond its box, which may cut through the other cells.
    first_row, first_column = math.floor(top), math.floor(left)
    cells = evidence[first_row : math.ceil(top + down), first_column : math.ceil(left + across)]
    box = (left - first_column, top - first_row, left - first_column + across, top - first_row + down)
    drawn = np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BILINEAR, box=box))
    least, most = float(drawn.min()), float(drawn.max())
    grey = np.zeros(drawn.shape, np.uint8) if most <= least else np.round((drawn - least) * (255 / (most - least)))
    file = BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(file, "PNG", optimize=False)
    return file.getvalue()


def draw_preview(pixels: npt.NDArray[np.uint8], width: int, height: int) -> bytes:
    """Draw the photo, for a browser that cannot read its kind of file.

    Args:
        pixels: the model's input, ``uint8 [H, W, 3]``.
        width: columns of it that are the photo, in the middle; the rest is filled.
        height: rows of it that are the photo.

    Returns:
        A JPEG of ``width`` by ``height`` pixels.
    """
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    file = BytesIO()
    Image.fromarray(pixels[top : top + height, left : left + width]).save(file, "JPEG", quality=85)
    return file.getvalue()
