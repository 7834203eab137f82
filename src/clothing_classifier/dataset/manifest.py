"""The manifest: every photo of a dataset, what is known of it, and why it is dropped if it is."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Final

COLUMNS: Final = ("path", "label", "sender", "kids", "part", "sha256", "width", "height", "dropped", "edition")
"""Columns of the CSV form."""

NO_PHOTO: Final = "row without a photo"
"""Why a name in `Manifest.missing` is not used."""

ERRORS: Final = sys.getfilesystemencodeerrors()
"""A file name is bytes, and not always UTF-8; with the file system's error handler they come out as they are."""


class DatasetError(Exception):
    """A dataset cannot be used. The message names the file or folder, the reason and what to do."""


def compute_sha256(file: IO[bytes]) -> str:
    """Return the SHA-256 of an open file's bytes, in hexadecimal, without all of them in memory at once.

    Raises:
        OSError: they cannot be read.
    """
    digest = hashlib.sha256()
    while chunk := file.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a dataset.

    Attributes:
        path: relative to the dataset's root, with ``/`` between the parts on every system.
        label: its class, or what it was called instead of one; ``None`` if nothing says.
        sender: who sent it; ``None`` if nothing says.
        kids: whether it shows children's clothes; ``None`` if nothing says.
        part: ``"train"``, ``"validation"`` or ``"test"`` where the dataset comes split, otherwise ``None``.
        sha256: of the file's bytes, in hexadecimal; empty if they cannot be read.
        width: of the upright picture, in pixels; 0 if it cannot be read.
        height: likewise.
        dropped: why it is not used, in words; empty for a photo that is kept. What follows the first colon and
            space is of this photo alone.
    """

    path: str
    label: str | None
    sender: str | None = None
    kids: bool | None = None
    part: str | None = None
    sha256: str = ""
    width: int = 0
    height: int = 0
    dropped: str = ""

    @property
    def reason(self) -> str:
        """The part of ``dropped`` that is the same for all photos that are dropped for that reason."""
        return self.dropped.partition(": ")[0]


@dataclass(frozen=True)
class Manifest:
    """All photos of a dataset.

    Attributes:
        root: the folder that the photos' paths start from.
        edition: which edition of the dataset it is, in words.
        photos: every photo, sorted by path.
        missing: names in ``images.csv`` for which there is no photo, sorted.
    """

    root: Path
    edition: str
    photos: tuple[Photo, ...]
    missing: tuple[str, ...] = ()

    @cached_property
    def kept(self) -> tuple[Photo, ...]:
        """The photos that are used, sorted by path."""
        return tuple(photo for photo in self.photos if not photo.dropped)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The kept photos' labels, sorted by name."""
        return tuple(sorted({photo.label for photo in self.kept if photo.label is not None}))

    @property
    def senders_known(self) -> bool:
        """Whether any of the kept photos has a sender."""
        return any(photo.sender is not None for photo in self.kept)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, over content, label and path of the kept photos.

        It is the same wherever the dataset lies and in whatever order and form (NFC or NFD) a file system lists it.
        """
        lines = sorted(
            json.dumps(
                [photo.sha256, *(text and unicodedata.normalize("NFC", text) for text in (photo.label, photo.path))]
            )
            for photo in self.kept
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the manifest as CSV, which `read_manifest` reads back: a row each for photos and for missing ones.

        The root is not written: it differs from machine to machine.

        Args:
            path: the file, which is replaced as a whole if it is there.

        Raises:
            ValueError: the manifest has neither photos nor missing ones, so that no row could tell the edition.
            OSError: the file cannot be written.
        """
        if not self.photos and not self.missing:
            raise ValueError("a manifest without photos cannot be written")
        partial = path.with_name(path.name + ".partial")
        try:
            # RFC 4180's line end makes the writer quote both of its characters in a file's name.
            with partial.open("w", encoding="utf-8", errors=ERRORS, newline="") as file:
                writer = csv.writer(file, lineterminator="\r\n")
                writer.writerow(COLUMNS)
                for p in self.photos:
                    kids = "" if p.kids is None else str(p.kids)
                    known = (p.path, p.label, p.sender, kids, p.part, p.sha256, p.width, p.height, p.dropped)
                    writer.writerow((*known, self.edition))
                for name in self.missing:
                    writer.writerow((name, "", "", "", "", "", "", "", NO_PHOTO, self.edition))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest's CSV form.

    Args:
        path: a file that `Manifest.write` wrote.

    Returns:
        The manifest that was written; its root is the folder that the file lies in.

    Raises:
        DatasetError: the file cannot be read, or is not a manifest; the message names it and the line.
    """
    photos: list[Photo] = []
    missing: list[str] = []
    edition = ""
    line = 1
    try:
        with path.open(encoding="utf-8", errors=ERRORS, newline="") as file:
            reader = csv.reader(file, strict=True)
            if tuple(next(reader, ())) != COLUMNS:
                raise DatasetError(f"{path}: is not a manifest; `clothing data check` writes one")
            for row in reader:
                line = reader.line_num
                name, label, sender, kids, part, sha256, width, height, dropped, edition = row
                if not width:
                    missing.append(name)
                    continue
                photos.append(
                    Photo(
                        path=name,
                        label=label or None,
                        sender=sender or None,
                        kids={"": None, "True": True, "False": False}[kids],
                        part=part or None,
                        sha256=sha256,
                        width=int(width),
                        height=int(height),
                        dropped=dropped,
                    )
                )
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, csv.Error) as error:
        raise DatasetError(f"{path}: line {line} is not a manifest's ({error}); write it again") from error
    if not edition:
        raise DatasetError(f"{path}: has no rows; write it again with `clothing data check`")
    return Manifest(path.parent, edition, tuple(photos), tuple(missing))
