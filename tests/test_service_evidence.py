from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clothing_classifier.resizing import Resizing
from clothing_classifier.service.evidence import SIDE, draw_evidence


def drawn(evidence: Sequence[Sequence[float]], resizing: Resizing, width: int, height: int) -> Image.Image:
    picture = Image.open(BytesIO(draw_evidence(np.array(evidence, np.float32), resizing, width, height)))
    assert (picture.format, picture.mode) == ("PNG", "L")
    return picture


def test_it_has_the_photos_proportions_and_spans_all_greys() -> None:
    resizing = Resizing(192, 160)
    evidence = np.arange(30, dtype=np.float32).reshape(6, 5).tolist()
    picture = drawn(evidence, resizing, *resizing.target(3000, 1000))
    assert picture.width == SIDE
    assert picture.width / picture.height == pytest.approx(3, rel=0.05)
    assert picture.getextrema() == (0, 255)
    assert picture.getpixel((0, 0)) == 0
    assert picture.getpixel((picture.width - 1, picture.height - 1)) == 255


def test_the_filling_is_cut_off_however_much_it_speaks() -> None:
    # A wide photo in a square input: the first and the last of four rows of cells are filling.
    evidence = [[9.0] * 4, [0.0, 0, 0, 1], [0.0, 0, 0, 1], [9.0] * 4]
    picture = drawn(evidence, Resizing(64, 64), 64, 32)
    assert picture.size == (64, 32)
    middle = np.asarray(picture)[12:20]
    assert (middle[:, :8] == 0).all()
    assert (middle[:, -4:] > 90).all()


def test_cells_that_are_filling_in_part_are_cut() -> None:
    evidence = [[0.0, 0, 1]] * 3
    whole = np.asarray(drawn(evidence, Resizing(90, 90), 90, 90)).mean()
    middle = np.asarray(drawn(evidence, Resizing(90, 90), 50, 90)).mean()
    assert middle < whole


def test_squashed_photos_are_whole() -> None:
    resizing = Resizing(40, 80, mode="squash")
    picture = drawn([[0.0, 1.0], [0.0, 1.0]], resizing, *resizing.target(10, 4000))
    assert picture.size == (64, 32)


def test_evidence_that_is_the_same_everywhere_shows_nothing() -> None:
    assert drawn([[2.5, 2.5], [2.5, 2.5]], Resizing(10, 10), 10, 10).getextrema() == (0, 0)


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    photo=st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
)
def test_any_photo_and_any_model_give_a_picture(
    rows: int, columns: int, height: int, width: int, photo: tuple[int, int]
) -> None:
    resizing = Resizing(height, width)
    evidence = np.linspace(-5, 5, rows * columns).reshape(rows, columns).tolist()
    picture = drawn(evidence, resizing, *resizing.target(*photo))
    assert max(picture.size) == SIDE
