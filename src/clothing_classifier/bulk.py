"""Folders and lists of photos, of any length → rows of predictions, in memory that does not grow with it."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from queue import Empty, Queue, SimpleQueue
from threading import Thread
from typing import Final

import numpy as np
import numpy.typing as npt

from clothing_classifier.classifier import Classifier, Prediction
from clothing_classifier.images import SUFFIXES, SYSTEM_FOLDERS, PhotoError
from clothing_classifier.machine import share_cores

GROUP: Final = 2
"""Photos that cores compute together: one thread is hardly faster with more, and each takes 25 MB."""

GROUP_ELSEWHERE: Final = 16
"""Photos that a GPU computes together."""

_AHEAD: Final = 8
"""Groups under way or done, for each worker. Rows keep their order, and a photo may take as long as twenty others: with
two groups a worker, eight workers stood still two fifths of the time where one photo in twenty was HEIC."""

_MOMENT: Final = 0.05
"""Seconds that a group waits for its next photo, and finished rows for what may come, where photos come slowly."""


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


def find_photos(paths: Iterable[str], passed_over: Counter[str] | None = None) -> Iterator[str | PhotoError]:
    """Find the photos that paths stand for.

    A folder stands for the files with a picture's suffix in it and below, sorted by name, without hidden files and
    folders, and those of systems. Links to folders are followed where they are given, not where they are found, so that
    no circle of links is walked. Any other path stands for itself, whatever its suffix and whether or not it exists.

    Args:
        paths: files and folders.
        passed_over: counts the ``"files"`` without a picture's suffix and the ``"links"`` to folders that are found.

    Yields:
        Each photo's path, in the order of ``paths``; for a folder that cannot be listed or holds no photo, the error.

    Raises:
        TypeError: it is one path and not several.
    """
    _require_several(paths)
    passed_over = Counter() if passed_over is None else passed_over
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        empty = True
        for found in _walk(path, passed_over):
            empty = False
            yield found
        if empty:
            yield PhotoError(path, "is a folder without photos")


def predict_photos(
    classifier: Classifier,
    photos: Iterable[str | PhotoError],
    *,
    threads: int | None = None,
    slow: bool = False,
) -> Generator[Row, None, None]:
    """Classify photos, several at the same time.

    Args:
        classifier: the model; fastest if it was loaded as `share_cores` says.
        photos: paths, which are taken a little ahead of the rows; the errors of `find_photos` become rows.
        threads: how many threads work, each on a few photos; by default one for each core.
        slow: whether the photos may be long in coming, as those of a list that another program still writes: a thread
            takes them, and no row waits for the next photo. It is not waited for at the end.

    Yields:
        A row for each photo, in their order. A photo that cannot be read is a row with its reason.

    Raises:
        ModelError: the model fails.
        TypeError: it is one path and not several.
    """
    _require_several(photos)
    workers = threads or share_cores()[0]
    size = GROUP if classifier.on_cores else GROUP_ELSEWHERE
    waiting: deque[Future[list[Row]]] = deque()
    finished: SimpleQueue[Future[list[Row]]] = SimpleQueue()
    under_way, ended = 0, False
    pool = ThreadPoolExecutor(workers, "predict")
    groups = (_take_slowly if slow else _take)(photos, size)
    try:
        while True:
            while waiting and waiting[0].done():
                yield from waiting.popleft().result()
            while not finished.empty():
                finished.get()
                under_way -= 1
            # One group for each worker, and the next one. No more are taken: who writes the paths may be slow.
            if not ended and under_way < 2 * workers and len(waiting) < _AHEAD * workers:
                group = next(groups, None)
                if group:
                    waiting.append(pool.submit(_predict, classifier, group))
                    waiting[-1].add_done_callback(finished.put)
                    under_way += 1
                ended = group is None
            elif under_way:
                finished.get()
                under_way -= 1
            elif not waiting:  # else the last groups were done while `finished` was emptied
                return
    finally:
        groups.close()
        pool.shutdown(cancel_futures=True)


def _take(photos: Iterable[str | PhotoError], size: int) -> Generator[list[str | PhotoError], None, None]:
    source = iter(photos)
    while group := list(islice(source, size)):
        yield group


def _take_slowly(photos: Iterable[str | PhotoError], size: int) -> Generator[list[str | PhotoError], None, None]:
    """Yield photos in groups, each as soon as no further photo comes for a moment; an empty one where none came."""
    taken: Queue[list[str | PhotoError] | BaseException | None] = Queue(4 * size)
    stopped = False

    def take() -> None:
        end: BaseException | None = None
        try:
            for photo in photos:
                taken.put([photo])
                if stopped:
                    return
        except BaseException as error:  # it is raised where the rows are
            end = error
        taken.put(end)

    Thread(target=take, name="photos", daemon=True).start()
    group: list[str | PhotoError] = []
    try:
        while True:
            more: list[str | PhotoError] | BaseException | None = []
            with suppress(Empty):
                more = taken.get(timeout=_MOMENT)
            if isinstance(more, list):
                group += more
                if not more or len(group) == size:
                    yield group
                    group = []
                continue
            if group:
                yield group
            if more is not None:
                raise more
            return
    finally:
        stopped = True
        with suppress(Empty):  # a thread that waits to hand over a photo ends
            taken.get_nowait()


def _require_several(paths: object) -> None:
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise TypeError("several paths are taken, as a list; one alone would be taken letter by letter")


def _predict(classifier: Classifier, group: Sequence[str | PhotoError]) -> list[Row]:
    prepared: list[npt.NDArray[np.uint8]] = []
    errors: list[str | None] = []
    for photo in group:
        try:
            if isinstance(photo, PhotoError):
                raise photo
            prepared.append(classifier.prepare(photo))
            errors.append(None)
        except PhotoError as error:
            errors.append(error.reason)
    predictions = iter(classifier.rank(classifier.compute_probabilities(np.stack(prepared))) if prepared else ())
    paths = [photo.name if isinstance(photo, PhotoError) else photo for photo in group]
    return [
        Row(path, next(predictions)) if reason is None else Row(path, error=reason)
        for path, reason in zip(paths, errors, strict=True)
    ]


def _walk(folder: str, passed_over: Counter[str]) -> Iterator[str | PhotoError]:
    todo = [(folder, True)]  # a stack and not recursion: folders may be nested deeper than Python's calls
    while todo:
        path, is_folder = todo.pop()
        if not is_folder:
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                # Of a link to itself, or into a closed folder, entry.is_dir() would raise, and os.path.isdir() says no.
                found = sorted(
                    (
                        entry.name,
                        entry.is_dir(follow_symlinks=False),
                        entry.is_symlink() and os.path.isdir(entry.path),
                    )
                    for entry in entries
                )
        except OSError as error:
            yield PhotoError(path, f"is a folder that cannot be listed ({error.strerror})")
            continue
        for name, is_folder, is_linked_folder in reversed(found):
            if name.startswith(".") or name.lower() in SYSTEM_FOLDERS:
                continue
            if is_linked_folder:
                passed_over["links"] += 1
            elif is_folder or os.path.splitext(name)[1].lower() in SUFFIXES:
                todo.append((os.path.join(path, name), is_folder))
            else:
                passed_over["files"] += 1
