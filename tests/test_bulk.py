from __future__ import annotations

import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clothing_classifier.bulk import _AHEAD, GROUP, GROUP_ELSEWHERE, Row, find_photos, predict_photos
from clothing_classifier.card import ModelError
from clothing_classifier.classifier import Classifier, Prediction
from clothing_classifier.images import PhotoError
from clothing_classifier.machine import share_cores

COLOURS = {"red": (220, 30, 20), "green": (10, 200, 40), "blue": (20, 40, 210)}


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier.load(tiny_model)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One photo of each class: label → path."""
    folder = tmp_path_factory.mktemp("photos")
    for label, colour in COLOURS.items():
        Image.new("RGB", (16, 24), colour).save(folder / f"{label}.png")
    return {label: str(folder / f"{label}.png") for label in COLOURS}


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_is_its_pictures_and_those_below_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/2.png", "a/10.webp", "c.jpeg", "notes.txt", "jpg", "a/x/deep.heic")
    touch(tmp_path, ".hidden.jpg", ".cache/a.jpg", "a/.DS_Store")
    found = [os.path.relpath(str(path), tmp_path) for path in find_photos([str(tmp_path)])]
    assert [path.replace(os.sep, "/") for path in found] == [
        "a/10.webp",
        "a/2.png",
        "a/x/deep.heic",
        "b.JPG",
        "c.jpeg",
    ]


def test_paths_are_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "photos/a.jpg")
    monkeypatch.chdir(tmp_path)
    given_paths = ["none.jpg", "photos", ".", "photos/", "notes.txt", "a\0b"]
    found = [os.path.join("photos", "a.jpg"), os.path.join(".", "photos", "a.jpg"), "photos/a.jpg"]
    assert list(find_photos(given_paths)) == ["none.jpg", *found, "notes.txt", "a\0b"]


def test_a_folder_without_photos_is_an_error_that_names_it(tmp_path: Path) -> None:
    touch(tmp_path, "empty/notes.txt")
    (error,) = find_photos([str(tmp_path / "empty")])
    assert isinstance(error, PhotoError)
    assert (error.name, error.reason) == (str(tmp_path / "empty"), "is a folder without photos")


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege elsewhere")
def test_circles_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop.jpg").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "real" / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "real" / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "real" / "circle").symlink_to("circle")
    (tmp_path / "link").symlink_to("real")
    found = [str(tmp_path / "link" / name) for name in ("a.jpg", "b.jpg", "broken.jpg", "circle.jpg")]
    assert list(find_photos([str(tmp_path / "link")])) == found


def test_a_folder_that_cannot_be_listed_is_an_error_among_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.jpg")
    scandir = os.scandir

    def refuse(path: str) -> Any:  # the superuser of a test machine may list everything
        if path.endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    first, error, last = find_photos([str(tmp_path)])
    assert (first, last) == (str(tmp_path / "a" / "1.jpg"), str(tmp_path / "c" / "1.jpg"))
    assert isinstance(error, PhotoError)
    assert str(error) == f"{tmp_path / 'b'}: is a folder that cannot be listed (Permission denied)"


@given(st.lists(st.sampled_from(["red", "green", "blue", "missing", "folder"]), max_size=12 * GROUP))
def test_every_photo_is_a_row_in_its_place(classifier: Classifier, photos: dict[str, str], labels: list[str]) -> None:
    folder = PhotoError("folder", "is a folder without photos")
    wanted = [folder if label == "folder" else photos.get(label, "missing.png") for label in labels]
    rows = list(predict_photos(classifier, wanted, threads=2))
    assert [row.path for row in rows] == [str(getattr(photo, "name", photo)) for photo in wanted]
    for row, label in zip(rows, labels, strict=True):
        if label in photos:
            assert row == Row(photos[label], classifier.predict(photos[label]))
        else:
            assert row.prediction is None
            assert row.error


def test_photos_are_taken_a_little_ahead_and_no_more(classifier: Classifier, photos: dict[str, str]) -> None:
    taken, here = 0, threading.current_thread()

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            assert threading.current_thread() is here
            taken += 1
            yield photos["red"]

    rows = predict_photos(classifier, endless(), threads=2)
    for written in range(20 * GROUP):
        assert next(rows).path == photos["red"]
        assert taken - written <= _AHEAD * 2 * GROUP
    rows.close()


def test_photos_are_computed_side_by_side() -> None:
    together = threading.Barrier(2, timeout=30)

    class Waiting(Classifier):
        """A classifier that computes nothing before another thread is computing as well."""

        on_cores = True

        def __init__(self) -> None:
            pass

        def prepare(self, photo: object) -> npt.NDArray[np.uint8]:
            return np.zeros((1, 1, 3), np.uint8)

        def compute_probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            together.wait()
            raise ModelError("fails")

    with pytest.raises(ModelError):
        list(predict_photos(Waiting(), ["a.jpg"] * 2 * GROUP, threads=2))


def test_a_gpu_is_given_more_at_once(classifier: Classifier, photos: dict[str, str]) -> None:
    sizes: list[int] = []

    class Counting(Classifier):
        """The classifier, as if on a GPU."""

        def __init__(self) -> None:
            vars(self).update(vars(classifier) | {"on_cores": False})

        def compute_probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            sizes.append(len(pixels))
            return super().compute_probabilities(pixels)

    rows = list(predict_photos(Counting(), [photos["red"]] * (GROUP_ELSEWHERE + 1), threads=1))
    assert [row.path for row in rows] == [photos["red"]] * (GROUP_ELSEWHERE + 1)
    assert sizes == [GROUP_ELSEWHERE, 1]


@pytest.mark.parametrize(("cores", "shares"), [(1, (1, 1)), (2, (2, 1)), (64, (64, 1))])
def test_each_core_does_photos_of_its_own(cores: int, shares: tuple[int, int]) -> None:
    assert share_cores(cores) == shares


class Scripted(Classifier):
    """A classifier that does what a function of the path does, and computes nothing."""

    on_cores = True

    def __init__(self, look: Callable[[str], object]) -> None:
        self._look = look

    def prepare(self, photo: object) -> npt.NDArray[np.uint8]:
        self._look(str(photo))
        return np.zeros((1, 1, 3), np.uint8)

    def compute_probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.zeros((len(pixels), 2), np.float32)

    def rank(self, probabilities: npt.NDArray[np.float32]) -> list[Prediction]:
        return [Prediction(("a", "b"), (1.0, 0.0), 0.5)] * len(probabilities)


def test_one_path_is_not_taken_letter_by_letter(classifier: Classifier, photos: dict[str, str]) -> None:
    for alone in (photos["red"], Path(photos["red"]), photos["red"].encode()):
        with pytest.raises(TypeError, match="several paths are taken"):
            list(find_photos(alone))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="several paths are taken"):
            list(predict_photos(classifier, alone))  # type: ignore[arg-type]


def test_a_slow_photo_does_not_keep_the_others_waiting() -> None:
    """The first photo takes until five groups behind it are done; its row is the first all the same."""
    behind = [f"{number}.jpg" for number in range(5 * GROUP)]
    seen = set[str]()
    done = threading.Event()

    def look(path: str) -> None:
        if path == "slow.jpg":
            assert done.wait(30)
        seen.add(path)
        if seen >= set(behind):
            done.set()

    paths = ["slow.jpg", "beside.jpg", *behind]
    assert [row.path for row in predict_photos(Scripted(look), paths, threads=2)] == paths


def test_no_more_photos_are_taken_where_one_takes_long() -> None:
    others = (_AHEAD * 2 - 1) * GROUP  # all groups but its own
    taken = seen = taken_meanwhile = 0
    all_seen = threading.Event()

    def look(path: str) -> None:
        nonlocal seen, taken_meanwhile
        if path == "slow.jpg":
            assert all_seen.wait(30)
            taken_meanwhile = taken
        else:
            seen += 1
            if seen == others:
                all_seen.set()

    def come() -> Iterator[str]:
        nonlocal taken
        for path in ["slow.jpg", *["quick.jpg"] * 2 * others]:
            taken += 1
            yield path

    assert len(list(predict_photos(Scripted(look), come(), threads=2))) == 1 + 2 * others
    assert taken_meanwhile == _AHEAD * 2 * GROUP


def test_rows_come_before_further_paths_are_waited_for() -> None:
    """As where the paths come from a camera: the first photos' rows are there before the next photo is."""
    paths = iter([f"{number}.jpg" for number in range(4 * GROUP)])

    def come() -> Iterator[str]:
        yield from paths
        raise TimeoutError  # a further one would be waited for

    rows = predict_photos(Scripted(len), come(), threads=1)
    assert [next(rows).path for _ in range(2 * GROUP)] == [f"{number}.jpg" for number in range(2 * GROUP)]
    rows.close()


@pytest.mark.timeout(60)  # a run that misses it would wait for ever
def test_the_last_photos_may_be_done_at_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even at that after it was asked whether they are."""
    photos = ["photo.jpg"] * GROUP
    all_taken, go_on = threading.Event(), threading.Event()
    is_done = Future.done

    def is_done_a_moment_later(self: Future[list[Row]]) -> bool:
        found = is_done(self)
        if not found and all_taken.is_set():
            told = threading.Event()
            self.add_done_callback(lambda _: told.set())
            go_on.set()
            assert told.wait(30)
        return found

    def come() -> Iterator[str]:
        yield from photos
        all_taken.set()

    monkeypatch.setattr(Future, "done", is_done_a_moment_later)
    rows = predict_photos(Scripted(lambda _: go_on.wait(30)), come(), threads=1)
    assert [row.path for row in rows] == photos


@pytest.mark.parametrize("count", [1, GROUP, 3 * GROUP + 1])
def test_slow_photos_are_not_waited_for(count: int) -> None:
    """As where a folder is watched: each row is there while the next photo is still to come."""
    shown, ended = threading.Semaphore(0), False
    sizes: list[int] = []

    class Counting(Scripted):
        def compute_probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            sizes.append(len(pixels))
            return super().compute_probabilities(pixels)

    def come() -> Iterator[str]:
        nonlocal ended
        for _ in range(2):
            for number in range(count):
                yield f"{number}.jpg"
            for _ in range(count):
                ended |= not shown.acquire(timeout=30)
        yield "last.jpg"
        raise OSError("the list cannot be read on")

    rows = predict_photos(Counting(len), come(), threads=2, slow=True)
    for number in (*range(count), *range(count)):
        assert next(rows).path == f"{number}.jpg"
        shown.release()
    with pytest.raises(OSError, match="the list cannot be read on"):
        list(rows)
    assert not ended
    assert max(sizes) == min(count, GROUP), "photos that come together are computed together"


def test_a_stopped_run_waits_for_no_slow_photo() -> None:
    never = threading.Event()

    def come() -> Iterator[str]:
        yield "first.jpg"
        never.wait(30)

    rows = predict_photos(Scripted(len), come(), threads=1, slow=True)
    assert next(rows).path == "first.jpg"
    rows.close()
    (waiting,) = (thread for thread in threading.enumerate() if thread.name == "photos")
    never.set()
    waiting.join(30)
    rows = predict_photos(Scripted(len), itertools.repeat("red.jpg"), threads=1, slow=True)
    next(rows)
    (taking,) = (thread for thread in threading.enumerate() if thread.name == "photos")
    rows.close()
    taking.join(30)
    assert not taking.is_alive()


def test_a_run_that_is_stopped_leaves_no_threads(classifier: Classifier, photos: dict[str, str]) -> None:
    rows = predict_photos(classifier, [photos["red"]] * 12 * GROUP, threads=2)
    next(rows)
    assert any(thread.name.startswith("predict") for thread in threading.enumerate())
    rows.close()
    assert not any(thread.name.startswith("predict") for thread in threading.enumerate())


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege elsewhere")
def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/1.jpg_large", "a/notes.txt", ".hidden", "@eaDir/1.jpg/SMALL.jpg", "other/2.jpg")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "other")
    passed_over = Counter[str]()
    assert list(find_photos([str(tmp_path / "a")], passed_over)) == [str(tmp_path / "a" / "1.jpg")]
    assert passed_over == {"files": 2, "links": 1}
    assert len(list(find_photos([str(tmp_path)]))) == 2
