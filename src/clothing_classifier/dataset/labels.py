"""What a person has labelled, folders or a table → the photos that it speaks of.

Any CSV table will do that has a column for the photo and one for what it truly shows. Three that this project writes
are read by what their columns mean: the page's, whose ``answer`` a person may have corrected; that of
``clothing predict``, whose ``label`` a person may have corrected; and the manifest, whose ``dropped`` photos stay out.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from clothing_classifier.dataset.editions import PARTS, YES, Listing, list_photos, merge_spellings
from clothing_classifier.dataset.manifest import ERRORS, DatasetError, Photo
from clothing_classifier.images import SUFFIXES, is_address
from clothing_classifier.taxonomy import canonical_label, fold_label

PHOTO_COLUMNS: Final = ("path", "name", "file", "filename", "image", "photo", "image_path", "file_path", "filepath")
"""Columns that may say which photo a row is about; the first of them that is there does."""

LABEL_COLUMNS: Final = ("truth", "true_label", "answer", "label", "class", "category", "class_name")
"""Columns that may say what it shows, likewise."""

_SENDER_COLUMNS: Final = ("sender", "sender_id")
_KNOWN: Final = {*PHOTO_COLUMNS, *LABEL_COLUMNS, *_SENDER_COLUMNS, "part", "dropped", "corrected"}
_PREDICTED: Final = {"label", "probability", "sure"}

RESERVED: Final = frozenset({*_KNOWN, *_PREDICTED, "predicted", "fold", "group", "taught"})
"""Columns that mean something here or in a run's ``predictions.csv``, so that no class there may be called so."""

_HEAD: Final = 4096
_DELIMITERS: Final = ",;\t"  # a spreadsheet writes what its country writes
_SHOWN: Final = 10
_NOT_UTF8: Final = "{table}: is not UTF-8 text; save it again as CSV in UTF-8"

# The page puts an apostrophe before what a spreadsheet would compute; see service/page/csv.js.
_GUARDED: Final = re.compile("\\A'(?=[\t\r\n ]*[=+\\-@＝＋－＠]|[\t\r\n])")


def read_labels(table: Path, folder: Path | None = None) -> Listing:
    """Read a table of labels, or list a folder's photos as `list_photos` does.

    Args:
        table: the folder, or a CSV file in UTF-8, with commas, semicolons or tabs, whose first line names the columns:
            one of `PHOTO_COLUMNS` and one of `LABEL_COLUMNS`, in any case. The columns sender (or sender_id), part and
            dropped mean what they do in a manifest.
        folder: where the photos' paths start from; by default the table's own folder, or the current one if none of
            the photos is found from there.

    Returns:
        The photos, without content, in the table's order. A photo that is named again counts once; ``label`` is
        ``None`` and ``dropped`` says why where rows contradict each other or say nothing. Of spellings of one label,
        which differ in case, white space or Unicode's form, all photos get the most frequent one.

    Raises:
        DatasetError: the table cannot be read or lacks a column, or none of its photos is there.
    """
    if table.is_dir():
        return list_photos(table)
    if table.suffix.lower() in SUFFIXES:
        raise DatasetError(f"{table}: is a photo; give a folder with one folder of photos per class, or a table")
    photos: dict[str, Photo] = {}
    missing: list[str] = []
    guessed: set[str] = set()
    rows = repeated = 0
    try:
        for line, photo, is_guess in _read(table):
            rows += 1
            if not photo.path.strip():
                missing.append(f"(no name, line {line})")
                continue
            key = photo.path.removeprefix("./")  # as find writes it
            known = photos.setdefault(key, photo)
            if known is photo:
                guessed.update([photo.path] * is_guess)
            elif _meaning(known) == _meaning(photo):
                repeated += 1
            else:
                both = " and ".join(other.label or other.dropped for other in (known, photo))
                reason = known.dropped if known.dropped.startswith("contradict") else f"contradictory rows: {both}"
                photos[key] = Photo(known.path, label=None, dropped=reason)
                guessed.discard(known.path)
    except OSError as error:
        raise DatasetError(f"{table}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DatasetError(_NOT_UTF8.format(table=table)) from error
    if not photos:
        raise DatasetError(f"{table}: names no photos")
    paths = [photo.path for photo in photos.values()]
    root = _find_root(table, [table.parent, Path()] if folder is None else [folder], paths)
    for photo in photos.values():
        lost = _is_escaped(photo.path) and not os.path.lexists(os.path.join(root, photo.path))
        if lost or _is_escaped((photo.label or "") + photo.dropped):
            raise DatasetError(_NOT_UTF8.format(table=table))
    return Listing(
        root=root,
        edition="table",
        photos=merge_spellings(tuple(photos.values())),
        rows=rows,
        missing=tuple(missing),
        repeated=repeated,
        guessed=len(guessed),
    )


def _is_escaped(text: str) -> bool:
    """Say whether bytes that are not UTF-8 stand in a text: of file names they are kept as they are."""
    return any("\udc80" <= letter <= "\udcff" for letter in text)


def _meaning(photo: Photo) -> str | None:
    return photo.label and (canonical_label(photo.label) or fold_label(photo.label))


def _find_root(table: Path, folders: Sequence[Path], paths: Sequence[str]) -> Path:
    """Return the first folder from which one of the paths, at least, leads to something."""
    for folder in folders:
        if any(os.path.exists(os.path.join(folder, path)) for path in paths):
            return folder
    if _is_escaped(paths[0]):
        raise DatasetError(_NOT_UTF8.format(table=table))
    if is_address(paths[0]):
        raise DatasetError(
            f"{table}: its photos are web addresses, such as {paths[0]}; download them, and name the files instead"
        )
    tried = " or ".join(dict.fromkeys(str(folder.absolute()) for folder in folders))
    of_windows = os.sep != "\\" and "\\" in paths[0]
    do = "write / for \\ in its paths" if of_windows else "say by --photos where they are"
    raise DatasetError(f"{table}: none of its photos, such as {paths[0]}, is in {tried}; {do}")


def _read(table: Path) -> Iterator[tuple[int, Photo, bool]]:
    """Yield each row's line, its photo, and whether its label is an answer of a model's that may be unchecked."""
    delimiter, header = _read_header(table)
    photo_column = next(header.index(column) for column in PHOTO_COLUMNS if column in header)
    label_column = next(header.index(column) for column in LABEL_COLUMNS if column in header)
    of_page = {"answer", "label", "corrected"} <= set(header)
    of_predict = header[label_column] == "label" and set(header) >= _PREDICTED and "predicted" not in header
    line = 1
    with _open(table) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            _next_header(reader)
            for cells in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                if any(cell.strip() for cell in cells[len(header) :]):
                    raise DatasetError(
                        f"{table}: line {line} has more cells than the first line; names with a {delimiter!r} in them "
                        "must be in quotes"
                    )
                path, label = (cells[n] if n < len(cells) else "" for n in (photo_column, label_column))
                values = dict(zip(header, (cell.strip() for cell in cells), strict=False))
                said = values.get("label", "")
                if of_page:
                    path, label, said = (_GUARDED.sub("", cell, count=1) for cell in (path, label, said))
                label = label.strip()
                unchanged = label == said.strip() and values.get("corrected", "").casefold() not in YES
                dropped = values.get("dropped", "") or ("" if label else "no label")
                yield (
                    line,
                    Photo(
                        path,
                        label=None if dropped else unicodedata.normalize("NFC", label),
                        sender=next((values[c] for c in _SENDER_COLUMNS if values.get(c)), None),
                        part=PARTS.get(values.get("part", "").casefold()),
                        dropped=dropped,
                    ),
                    not dropped and (unchanged if of_page else of_predict),
                )
        except csv.Error as error:
            raise DatasetError(f"{table}: is damaged after line {line} ({error}); save it again as CSV") from error


def _read_header(table: Path) -> tuple[str, list[str]]:
    """Return what lies between the cells, and the columns' names."""
    with table.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DatasetError(f"{table}: is in UTF-16; save it again as CSV in UTF-8")
    if head.startswith(b"PK\x03\x04"):
        raise DatasetError(
            f"{table}: is a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV in UTF-8"
        )
    if b"\0" in head:
        raise DatasetError(f"{table}: is no table of text (it holds NUL bytes); give one as CSV in UTF-8")
    found: list[list[str]] = []
    for delimiter in _DELIMITERS:
        with _open(table) as file:
            try:
                header = [name.strip().casefold() for name in _next_header(csv.reader(file, delimiter=delimiter))]
            except csv.Error:
                header = []
        if all(set(header) & set(columns) for columns in (PHOTO_COLUMNS, LABEL_COLUMNS)):
            twice = [name for name, count in Counter(header).items() if name in _KNOWN and count > 1]
            if twice:
                raise DatasetError(f"{table}: has the column {twice[0]} more than once; keep one of them")
            return delimiter, header
        found.append(header)
    columns = max(found, key=len)
    told = ", ".join(columns[:_SHOWN]) + (", …" if len(columns) > _SHOWN else "")
    raise DatasetError(
        f"{table}: its first line should name a column for the photo ({', '.join(PHOTO_COLUMNS)}) and one for its "
        f"label ({', '.join(LABEL_COLUMNS)}); it names: {told or 'nothing'}"
    )


def _next_header(reader: Iterator[list[str]]) -> list[str]:
    """Read the columns' names, after a line that tells Excel alone what lies between the cells: ``sep=;``."""
    header = next(reader, [])
    told = "".join(header).casefold()
    return next(reader, []) if told.startswith("sep=") and len(told) <= len("sep=;") else header


def _open(table: Path) -> TextIO:
    return table.open(encoding="utf-8-sig", errors=ERRORS, newline="")
