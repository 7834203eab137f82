"""Photos as phones take them, made of smaller ones."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

LARGE = (4000, 3000)


def grow(picture: Image.Image, random: np.random.Generator) -> bytes:
    """Return a picture as a JPEG of 12 megapixels, with the noise of a camera, so that it weighs what those weigh."""
    upright = picture.height >= picture.width
    large = picture.convert("RGB").resize(LARGE[::-1] if upright else LARGE, Image.Resampling.BICUBIC)
    grain = random.normal(0, 4, (large.height, large.width, 1)).astype(np.float32)
    file = BytesIO()
    Image.fromarray(np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
