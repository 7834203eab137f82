"""The editions of the dataset, told apart by what lies in the folder → what each photo is called.

====================== ==========================================================================================
edition                what lies in the folder
====================== ==========================================================================================
Kaggle's               ``images.csv``, ``images_compressed/`` and ``images_original/``
GitHub's               ``images.csv`` and ``images/``
the ten-class subset   ``train/``, ``validation/`` and ``test/``, in each a folder per class
the user's own         a folder per class, or such folders in ``train/``, ``validation/`` and ``test/``
====================== ==========================================================================================

https://www.kaggle.com/datasets/agrigorev/clothing-dataset-full, https://github.com/alexeygrigorev/clothing-dataset,
https://github.com/alexeygrigorev/clothing-dataset-small. Labels are matched by name: those of a published edition are
spelled as `clothing_classifier.taxonomy` does, the user's own stay as they are, except that spellings of one class are
merged.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from clothing_classifier.dataset.manifest import DatasetError, Photo
from clothing_classifier.images import SUFFIXES, SYSTEM_FOLDERS
from clothing_classifier.taxonomy import CLASSES, DROPPED_LABELS, TOP_10, canonical_label, fold_label

Size = Literal["compressed", "original"]
"""Which photos of Kaggle's edition: those made smaller for the web, or those that the cameras took."""

TABLE: Final = "images.csv"

_SIZES: Final[dict[Size, str]] = {"compressed": "images_compressed", "original": "images_original"}
_GITHUB: Final = "images"
PARTS: Final = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What people call the parts of their data, in lower case, and what these are called here."""

_SYSTEM_FILES: Final = {*SYSTEM_FOLDERS, "thumbs.db", "desktop.ini"}
YES: Final = {"true", "1", "yes"}
_NO: Final = {"false", "0", "no"}


@dataclass(frozen=True)
class Listing:
    """What an edition says of its photos, before any of them is opened.

    Attributes:
        root: the folder that paths start from; inside the given folder where an archive has put one around it.
        edition: which edition it is, in words.
        photos: without content; ``dropped`` holds what the edition itself says against a photo.
        rows: of ``images.csv``; ``None`` where the edition has no table.
        without_row: paths of the photos that the table does not name, sorted.
        missing: names in the table for which there is no photo, sorted.
        repeated: how many rows say again what another row of the same photo says.
        ignored: files and folders among the photos that are no picture files.
        empty: class folders without a picture file, by the names of their classes, sorted.
        guessed: how many labels are a model's own answers, and nothing shows that a person has checked them.
    """

    root: Path
    edition: str
    photos: tuple[Photo, ...]
    rows: int | None = None
    without_row: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    repeated: int = 0
    ignored: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    guessed: int = 0


def is_published(edition: object) -> bool:
    """Say whether an edition, in the words of a `Listing` or of a model's card, is one of the Clothing dataset's."""
    return isinstance(edition, str) and edition.startswith(("GitHub", "Kaggle", "ten-class subset"))


def list_photos(folder: Path, size: Size | None = None) -> Listing:
    """Find out which edition a folder holds, and list its photos.

    Args:
        folder: the dataset, or a folder that holds nothing else, as an archive unpacks.
        size: which photos of Kaggle's edition; by default the compressed ones, or those that are there.

    Returns:
        The listing; its photos are sorted by path.

    Raises:
        DatasetError: the folder is missing, empty or unreadable, no edition is recognised in it, its table is
            unusable, or it does not have the photos of that size.
    """
    root, found = _descend(folder)
    if size is not None and not (TABLE in found.files and set(_SIZES.values()) & set(found.folders)):
        raise DatasetError(f"{folder}: only Kaggle's edition has {size} photos to choose; leave the choice out")
    if TABLE in found.files:
        return _list_table(root, found, size)
    tables = {_GITHUB, *_SIZES.values()} & set(found.folders)
    if tables and tables == set(found.folders):
        raise DatasetError(f"{root}: {TABLE} is missing beside {' and '.join(f'{name}/' for name in sorted(tables))}")
    parts = [name for name in found.folders if name.lower() in PARTS]
    if len({PARTS[name.lower()] for name in parts}) > 1 and any(_look(root / name).folders for name in parts):
        return _list_parts(root, found, parts)
    for name in parts:
        content = _look(root / name)
        if content.folders and not content.photos:
            raise DatasetError(
                f"{root}: {name}/ holds folders like a part of the data, and is no class beside the others; call the "
                "parts train, validation and test, or give that folder another name if it is a class"
            )
    return _list_classes(root, found)


# ---------------------------------------------------------------------------------------------------------- folders


class _Content(NamedTuple):
    folders: list[str]
    files: list[str]
    other: list[str]

    @property
    def photos(self) -> list[str]:
        return [name for name in self.files if _is_photo(name)]


def _look(folder: Path) -> _Content:
    """Return a folder's content, each sorted by name, without what systems and archivers hide there."""
    content = _Content([], [], [])
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FILES:
                    continue
                if os.path.isdir(entry.path):  # unlike entry.is_dir(), it takes a link to itself for no folder
                    content.folders.append(entry.name)
                elif os.path.isfile(entry.path) or entry.is_symlink():  # a link to nothing: an unreadable photo
                    content.files.append(entry.name)
                else:
                    content.other.append(entry.name)
    except OSError as error:
        raise DatasetError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return content


def _is_photo(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _descend(folder: Path) -> tuple[Path, _Content]:
    """Return the folder that holds the dataset: this one, or the only one in it, and so on."""
    if not folder.is_dir():
        reason = "is a file; give the dataset's folder" if folder.exists() else "there is no such folder"
        raise DatasetError(f"{folder}: {reason}")
    found = _look(folder)
    if not any(found):
        raise DatasetError(
            f"{folder}: the folder is empty; put a folder of photos for each class there, or let `clothing data fetch` "
            "download the Clothing dataset"
        )
    passed = {_identity(folder)}
    while len(found.folders) == 1 and TABLE not in found.files and not found.photos:
        inner = folder / found.folders[0]
        content = _look(inner)
        holds_a_dataset = TABLE in content.files or (content.folders and not content.photos)
        if _identity(inner) in passed or not holds_a_dataset:
            break
        passed.add(_identity(inner))
        folder, found = inner, content
    return folder, found


def _walk(root: Path, top: str, passed: frozenset[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """Yield what lies in a folder and below, as path from the root and whether it is a photo; no circle is walked."""
    todo = [(top, passed)]
    while todo:
        folder, passed = todo.pop()
        identity = _identity(root / folder)
        if identity in passed:
            continue
        found = _look(root / folder)
        for name in found.files:
            yield f"{folder}/{name}", _is_photo(name)
        for name in found.other:
            yield f"{folder}/{name}", False
        todo += [(f"{folder}/{name}", passed | {identity}) for name in found.folders]


def _require_text(names: Iterable[str], folder: Path) -> None:
    """Make sure that folders' names can be labels: a label goes into files that are text."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DatasetError(
                f"{folder}: the class folder {name!r} has a name that is not UTF-8; rename it"
            ) from error


def _list_classes(root: Path, found: _Content) -> Listing:
    _require_text(found.folders, root)
    photos: list[Photo] = []
    ignored = [*found.photos, *found.other]
    passed = frozenset({_identity(root)})
    for name in found.folders:
        for path, is_photo in _walk(root, name, passed):
            if is_photo:
                photos.append(Photo(path, label=_normal(name)))
            else:
                ignored.append(path)
    if not photos:
        if found.photos:
            raise DatasetError(f"{root}: the photos lie in the folder itself; put each class into a folder of its name")
        raise DatasetError(
            f"{root}: no photos are recognised; the folder should hold {TABLE} beside images/ (or images_compressed/), "
            "or train/, validation/ and test/, or a folder of photos per class"
        )
    return Listing(
        root,
        "folder per class",
        merge_spellings(_by_path(photos)),
        ignored=tuple(sorted(ignored)),
        empty=_find_empty(map(_normal, found.folders), photos),
    )


def _list_parts(root: Path, found: _Content, parts: Sequence[str]) -> Listing:
    photos: list[Photo] = []
    ignored = [*found.photos, *found.other, *(f"{name}/" for name in found.folders if name not in parts)]
    contents = {part: _look(root / part) for part in parts}
    known = {_normal(name): canonical_label(name) for content in contents.values() for name in content.folders}
    # Folders that spell a class in another way than the subset does, "trousers", are of a person's own classes.
    published = {name.lower() for name in known} <= {label.lower() for label in TOP_10}
    for part, content in contents.items():
        _require_text(content.folders, root / part)
        ignored += [f"{part}/{name}" for name in (*content.files, *content.other)]
        passed = frozenset({_identity(root), _identity(root / part)})
        for name in content.folders:
            label = known[_normal(name)] if published else _normal(name)
            for path, is_photo in _walk(root, f"{part}/{name}", passed):
                if is_photo:
                    photos.append(Photo(path, label=label, part=PARTS[part.lower()]))
                else:
                    ignored.append(path)
    if not photos:
        raise DatasetError(f"{root}: no photos are recognised in the class folders of {', '.join(parts)}")
    edition = "ten-class subset" if published else "folder per class, in parts"
    empty = _find_empty((label for label in (known.values() if published else known) if label), photos)
    return Listing(root, edition, merge_spellings(_by_path(photos)), ignored=tuple(sorted(ignored)), empty=empty)


def _normal(name: str) -> str:
    """Return a folder's name as a label: file systems differ in how they spell letters with accents."""
    return unicodedata.normalize("NFC", name)


def _find_empty(classes: Iterable[str], photos: Iterable[Photo]) -> tuple[str, ...]:
    used = {fold_label(photo.label or "") for photo in photos}
    return tuple(sorted({label for label in classes if fold_label(label) not in used}))


def merge_spellings(photos: Sequence[Photo]) -> tuple[Photo, ...]:
    """Return the photos with one spelling for each label: the one with most photos, of several the first.

    Which labels are the same, `clothing_classifier.taxonomy.fold_label` says, for folders as for tables.
    """
    common: dict[str, str] = {}
    for label, _ in Counter(photo.label for photo in photos if photo.label).most_common():
        common.setdefault(fold_label(label), label)
    return tuple(replace(photo, label=common[fold_label(photo.label)]) if photo.label else photo for photo in photos)


def _by_path(photos: Iterable[Photo]) -> tuple[Photo, ...]:
    return tuple(sorted(photos, key=lambda photo: photo.path))


# ---------------------------------------------------------------------------------------------------------- tables


class _Row(NamedTuple):
    image: str
    label: str
    sender: str | None
    kids: bool | None


def _list_table(root: Path, found: _Content, size: Size | None) -> Listing:
    folder, edition = _choose_folder(root, found, size)
    content = _look(root / folder)
    if not content.photos:
        raise DatasetError(f"{root / folder}: holds no photos")
    rows = _read_table(root / TABLE)

    by_stem: dict[str, str] = {}
    for name in content.photos:
        by_stem.setdefault(os.path.splitext(name)[0], name)
    names = set(content.photos)
    of_photo: dict[str, list[_Row]] = {name: [] for name in content.photos}
    missing: set[str] = set()
    for row in rows:
        stem = os.path.splitext(row.image)[0] if _is_photo(row.image) else row.image
        # A name that is spelled out goes first, then the published editions' suffix, then any other.
        file = next((name for name in (row.image, f"{stem}.jpg") if name in names), by_stem.get(stem))
        if file is None:
            missing.add(row.image)
        else:
            of_photo[file].append(row)

    photos, repeated = [], 0
    for name, own in of_photo.items():
        photo, again = _describe(f"{folder}/{name}", own)
        photos.append(photo)
        repeated += again
    ignored = [f"{folder}/{name}" for name in (*content.files, *content.other) if name not in names]
    ignored += [f"{folder}/{name}/" for name in content.folders]
    return Listing(
        root=root,
        edition=edition,
        photos=_by_path(photos),
        rows=len(rows),
        without_row=tuple(sorted(f"{folder}/{name}" for name, own in of_photo.items() if not own)),
        missing=tuple(sorted(missing)),
        repeated=repeated,
        ignored=tuple(sorted(ignored)),
    )


def _choose_folder(root: Path, found: _Content, size: Size | None) -> tuple[str, str]:
    for choice, folder in _SIZES.items():
        if folder in found.folders and size in (None, choice):
            return folder, f"Kaggle ({choice} photos)"
    if size is not None:
        raise DatasetError(f"{root}: {_SIZES[size]}/ is not there; choose the other photos, or fetch the dataset again")
    if _GITHUB in found.folders:
        return _GITHUB, "GitHub"
    raise DatasetError(f"{root}: has {TABLE} but no photos; images/, images_compressed/ or images_original/ is missing")


def _describe(path: str, rows: Sequence[_Row]) -> tuple[Photo, int]:
    """Return a photo as its rows tell, and how many rows repeat another."""
    if not rows:
        return Photo(path, label=None, dropped=f"no row in {TABLE}"), 0
    labels = list(dict.fromkeys(canonical_label(row.label) or row.label for row in rows))
    label: str | None = labels[0]
    if len(labels) > 1:
        label, dropped = None, f"contradictory rows: {', '.join(name or '(no label)' for name in labels)}"
    elif not label:
        label, dropped = None, f"no label in {TABLE}"
    elif label in DROPPED_LABELS:
        dropped = f"label {label}: {DROPPED_LABELS[label]}"
    else:
        dropped = "" if label in CLASSES else f"unknown label: {label}"
    sender = next((row.sender for row in rows if row.sender is not None), None)
    kids = next((row.kids for row in rows if row.kids is not None), None)
    return Photo(path, label=label, sender=sender, kids=kids, dropped=dropped), len(rows) - len(labels)


def _read_table(path: Path) -> list[_Row]:
    rows = []
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            # A spreadsheet writes what its country writes.
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            header = [name.strip().casefold() for name in next(reader, [])]
            for column, count in Counter(header).items():
                if count > 1 and column in ("image", "label", "sender_id", "kids"):
                    raise DatasetError(f"{path}: has the column {column} {count} times; keep one of them")
            for column in ("image", "label"):
                if column not in header:
                    raise DatasetError(
                        f"{path}: the column {column} is missing; the first line should be image,sender_id,label,kids"
                    )
            for cells in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                values = {column: cell.strip() for column, cell in zip(header, cells, strict=False)}
                kids = values.get("kids", "").casefold()
                rows.append(
                    _Row(
                        image=values.get("image") or f"(no name, line {line})",
                        label=values.get("label", ""),
                        sender=values.get("sender_id") or None,
                        kids=True if kids in YES else False if kids in _NO else None,
                    )
                )
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not UTF-8 text; save it again as CSV in UTF-8") from error
    except csv.Error as error:
        raise DatasetError(f"{path}: is damaged after line {line} ({error}); fetch or save it again") from error
    if not rows:
        raise DatasetError(f"{path}: has no rows; fetch the dataset again")
    return rows
