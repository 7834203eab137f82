"""Folders and lists of photos, of any length → rows of predictions, in memory that does not grow with it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from clothing_classifier.classifier import BATCH, Classifier, Prediction, available_cores
from clothing_classifier.images import SUFFIXES, PhotoError

_MOST_DECODERS = 8  # each may hold one decoded photo of the largest size


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one photo: a prediction, or the reason why there is none.

    Attributes:
        path: as it was given, or below the folder that was given.
        prediction: ``None`` where the photo could not be read.
        error: the reason; ``None`` where there is a prediction.
    """

    path: str
    prediction: Prediction | None = None
    error: str | None = None


def find_photos(paths: Iterable[str]) -> Iterator[str | PhotoError]:
    """Find the photos that paths stand for.

    A folder stands for the files with a picture's suffix in it and below, sorted by name, without hidden files and
    folders. Links to folders are followed where they are given, not where they are found, so that no circle of links
    is walked. Any other path stands for itself, whatever its suffix and whether or not it exists.

    Args:
        paths: files and folders.

    Yields:
        Each photo's path, in the order of ``paths``; for a folder that cannot be listed or holds no photo, the error.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        empty = True
        for found in _walk(path):
            empty = False
            yield found
        if empty:
            yield PhotoError(path, "is a folder without photos")


def predict_photos(
    classifier: Classifier, photos: Iterable[str | PhotoError], *, threads: int | None = None
) -> Generator[Row, None, None]:
    """Classify photos, decoding the next ones while the present ones are computed.

    Args:
        classifier: the model.
        photos: paths, which are taken no further ahead than two batches; the errors of `find_photos` become rows.
        threads: how many threads decode; by default one for each core, at most 8.

    Yields:
        A row for each photo, in their order. A photo that cannot be read is a row with its reason.

    Raises:
        ModelError: the model fails.
    """
    source = iter(photos)
    waiting: deque[tuple[str, Future[npt.NDArray[np.uint8]]]] = deque()
    pool = ThreadPoolExecutor(threads or min(available_cores(), _MOST_DECODERS), "decode")
    try:
        while True:
            for photo in islice(source, 2 * BATCH - len(waiting)):
                path = photo.name if isinstance(photo, PhotoError) else photo
                waiting.append((path, pool.submit(_prepare, classifier, photo)))
            if not waiting:
                return
            # What stays in the queue is decoded while this batch is computed.
            yield from _predict(classifier, [waiting.popleft() for _ in range(min(BATCH, len(waiting)))])
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(classifier: Classifier, photo: str | PhotoError) -> npt.NDArray[np.uint8]:
    if isinstance(photo, PhotoError):
        raise photo
    return classifier.prepare(photo)


def _predict(classifier: Classifier, batch: list[tuple[str, Future[npt.NDArray[np.uint8]]]]) -> Iterator[Row]:
    prepared: list[npt.NDArray[np.uint8]] = []
    errors: list[str | None] = []
    for _, future in batch:
        try:
            prepared.append(future.result())
            errors.append(None)
        except PhotoError as error:
            errors.append(error.reason)
    predictions = iter(classifier.rank(classifier.run(np.stack(prepared)).probabilities) if prepared else ())
    for (path, _), reason in zip(batch, errors, strict=True):
        yield Row(path, next(predictions)) if reason is None else Row(path, error=reason)


def _walk(folder: str) -> Iterator[str | PhotoError]:
    todo = [(folder, True)]  # a stack and not recursion: folders may be nested deeper than Python's calls
    while todo:
        path, is_folder = todo.pop()
        if not is_folder:
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                found = sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in entries)
        except OSError as error:
            yield PhotoError(path, f"is a folder that cannot be listed ({error.strerror})")
            continue
        for name, is_folder, is_link in reversed(found):
            if name.startswith(".") or (is_folder and is_link):
                continue
            if is_folder or os.path.splitext(name)[1].lower() in SUFFIXES:
                todo.append((os.path.join(path, name), is_folder))
