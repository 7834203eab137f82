from __future__ import annotations

import dataclasses
import hashlib
import io
import random
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clothing_classifier.dataset import DatasetError, Manifest, Photo, read_manifest
from clothing_classifier.dataset.manifest import COLUMNS, compute_sha256

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
photos = st.builds(
    Photo,
    path=texts,
    label=st.none() | texts,
    sender=st.none() | texts,
    kids=st.sampled_from([None, True, False]),
    part=st.sampled_from([None, "train", "validation", "test"]),
    sha256=st.just("") | st.binary(min_size=32, max_size=32).map(bytes.hex),
    width=st.integers(0, 10**5),
    height=st.integers(0, 10**5),
    dropped=st.just("") | texts,
)


def make_photo(name: str, label: str = "Dress", dropped: str = "") -> Photo:
    return Photo(f"images/{name}.jpg", label, "7", False, None, name * 32, 400, 300, dropped)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifest")


@given(st.lists(photos), st.lists(st.just("") | texts), texts)
def test_what_is_written_is_read_back(
    folder: Path, photos: Sequence[Photo], missing: Sequence[str], edition: str
) -> None:
    manifest = Manifest(folder, edition, tuple(photos), tuple(missing))
    if not photos and not missing:
        with pytest.raises(ValueError, match="without photos"):
            manifest.write(folder / "manifest.csv")
        return
    manifest.write(folder / "manifest.csv")
    again = read_manifest(folder / "manifest.csv")
    assert again == manifest
    assert again.digest == manifest.digest


@pytest.mark.skipif(sys.platform == "win32", reason="file names are bytes elsewhere only")
def test_a_name_that_is_not_utf_8_is_read_back(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "folder per class", (make_photo("a"), Photo("hat/\udcff\udcfe.jpg", "hat")))
    manifest.write(tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv") == manifest


def test_the_root_is_not_in_the_file(tmp_path: Path) -> None:
    manifest = Manifest(Path("/far/away"), "GitHub", (make_photo("a"),))
    manifest.write(tmp_path / "manifest.csv")
    assert b"away" not in (tmp_path / "manifest.csv").read_bytes()
    assert read_manifest(tmp_path / "manifest.csv").root == tmp_path


def test_kept_and_classes_are_what_is_not_dropped() -> None:
    made = (make_photo("a", "Skirt"), make_photo("b", "Hat", "unreadable: is empty"), make_photo("c", "Dress"))
    manifest = Manifest(Path(), "GitHub", made)
    assert [photo.path for photo in manifest.kept] == ["images/a.jpg", "images/c.jpg"]
    assert manifest.classes == ("Dress", "Skirt")


def test_the_digest_is_of_the_kept_photos_and_of_nothing_else() -> None:
    made = [make_photo(name, label) for name, label in zip("abcdef", ["Dress", "Hat"] * 3, strict=True)]
    digest = Manifest(Path("here"), "GitHub", tuple(made)).digest
    shuffled = random.Random(0).sample(made, len(made))
    more = make_photo("g", dropped="unreadable: is empty")
    assert Manifest(Path("there"), "Kaggle", (*shuffled, more), ("x",)).digest == digest
    for change in ({"label": "Skirt"}, {"sha256": "0" * 64}, {"path": "images/z.jpg"}, {"dropped": "no row"}):
        other = dataclasses.replace(made[0], **change)  # type: ignore[arg-type]
        assert Manifest(Path("here"), "GitHub", (other, *made[1:])).digest != digest, change


def test_the_digest_does_not_depend_on_how_a_file_system_spells_accents() -> None:
    def digest(form: Literal["NFC", "NFD"]) -> str:
        path = unicodedata.normalize(form, "robe d'été/é.jpg")
        return Manifest(Path(), "folder per class", (Photo(path, "robe", sha256="0" * 64, width=1, height=1),)).digest

    assert digest("NFC") == digest("NFD")


HEADER = ",".join(COLUMNS) + "\r\n"
ROW = "images/a.jpg,Dress,7,False,,ab,400,300,,GitHub\r\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a manifest"),
        (b"image,sender_id,label,kids\r\n", "is not a manifest"),
        (b"\xff\xd8\xff\xe0", "is not a manifest"),
        (HEADER.encode(), "has no rows"),
        ((HEADER + ROW + ROW[:20]).encode(), "line 3 is not"),
        ((HEADER + ROW.replace("False", "maybe")).encode(), "line 2 is not"),
        ((HEADER + ROW + ROW.replace("400", "wide")).encode(), "line 3 is not"),
        ((HEADER + ROW.replace("Dress", '"Dress')).encode(), "is not a manifest's"),
    ],
)
def test_a_damaged_manifest_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.csv: cannot be read \(No such file"):
        read_manifest(tmp_path / "none.csv")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    Manifest(tmp_path, "GitHub", (make_photo("a"),)).write(path)
    before = path.read_bytes()
    broken = Manifest(tmp_path, "GitHub", (make_photo("b"), make_photo("\ud800")))  # no file name can hold it
    with pytest.raises(UnicodeEncodeError):
        broken.write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_manifest_that_is_cut_short_in_its_last_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    Manifest(tmp_path, "folder per class, in parts", (Photo("a.jpg", "Hat", width=1, height=1),)).write(path)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DatasetError, match=r"manifest\.csv: line \d is not a manifest's"):
        read_manifest(path)


@pytest.mark.parametrize("size", [0, 2**20 - 1, 2**20, 3 * 2**20 + 5])
def test_every_byte_of_a_file_counts_in_its_digest(size: int) -> None:
    content = bytes(size - 1) + b"x" if size else b""
    assert compute_sha256(io.BytesIO(content)) == hashlib.sha256(content).hexdigest()
