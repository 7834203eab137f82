"""Photos → one array in memory: each is decoded and resized once, by the rooms that prediction uses too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clothing_classifier.dataset import Photo
from clothing_classifier.images import open_picture
from clothing_classifier.machine import available_cores
from clothing_classifier.resizing import Resizing, resize
from clothing_classifier.training.networks import Statistics


def load_pixels(
    root: Path,
    photos: Sequence[Photo],
    resizing: Resizing,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.uint8]:
    """Decode and resize photos, in threads.

    Args:
        root: the folder that the photos' paths start from.
        photos: what to load.
        resizing: the network's input.
        progress: called with the number of photos loaded and the number of all.

    Returns:
        ``uint8 [N, height, width, 3]``, RGB, in the order of ``photos``.

    Raises:
        PhotoError: a file cannot be read any more.
    """
    pixels = np.empty((len(photos), resizing.height, resizing.width, 3), np.uint8)

    def load(photo: Photo) -> npt.NDArray[np.uint8]:
        return resize(open_picture(root / photo.path, target=resizing.target), resizing)

    with ThreadPoolExecutor(available_cores()) as threads:
        for number, picture in enumerate(threads.map(load, photos)):
            pixels[number] = picture
            progress(number + 1, len(photos))
    return pixels


def measure_statistics(pixels: npt.NDArray[np.uint8]) -> Statistics:
    """Return mean and standard deviation per channel of ``uint8 [N, H, W, 3]``, in units of 0 to 255."""
    counts = np.stack([np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(3)])
    share = counts / counts.sum(1, keepdims=True)
    values = np.arange(256)
    mean = (share * values).sum(1)
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    # A set of one flat colour has no spread; dividing by one leaves it finite.
    first, second = mean.tolist(), np.where(std > 0, std, 1.0).tolist()
    return Statistics((first[0], first[1], first[2]), (second[0], second[1], second[2]))
