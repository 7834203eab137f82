"""A folder's photos, without those that cannot be read; and photos as phones take them, made of smaller ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import Image

from clothing_classifier.images import PhotoError

T = TypeVar("T")


def read_photos(paths: Iterable[str | PhotoError], read: Callable[[str], T]) -> Iterator[T]:
    """Yield what is read of photos, as `find_photos` finds them; those that cannot be read are passed over.

    Where none can be, the benchmark ends, and says why the last one can not.
    """
    found, last = False, None
    for path in paths:
        try:
            if isinstance(path, PhotoError):
                raise path
            photo = read(path)
        except PhotoError as error:
            last = error
            continue
        found = True
        yield photo
    if not found:
        raise SystemExit(f"there is no photo that can be read; the last one tried: {last}")


def grow(picture: Image.Image, random: np.random.Generator, megapixels: float = 12) -> bytes:
    """Return a picture as a JPEG of so many megapixels, with a camera's noise, so that it weighs what those weigh."""
    size = round((megapixels * 1e6 * 4 / 3) ** 0.5), round((megapixels * 1e6 * 3 / 4) ** 0.5)
    upright = picture.height >= picture.width
    large = picture.convert("RGB").resize(size[::-1] if upright else size, Image.Resampling.BICUBIC)
    grain = random.normal(0, 4, (large.height, large.width, 1)).astype(np.float32)
    file = BytesIO()
    Image.fromarray(np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
