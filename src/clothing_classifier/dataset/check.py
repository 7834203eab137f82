"""Every photo of a dataset opened once → which are used, which are dropped, and why.

A file is readable if it has been decoded to its last pixel, and two files are copies if all their bytes agree; nothing
less shows either.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from clothing_classifier.dataset.editions import Listing, list_photos
from clothing_classifier.dataset.labels import RESERVED
from clothing_classifier.dataset.manifest import DatasetError, Manifest, Photo, compute_sha256
from clothing_classifier.images import DEFAULT_LIMITS, RAISE_LIMIT, Limits, PhotoError, explain_missing, open_picture
from clothing_classifier.machine import MOST_WORKERS, available_cores
from clothing_classifier.taxonomy import CLASSES, canonical_label, fold_label, is_class_name

_LARGEST_SENDERS: Final = 10
_LOSING: Final = ("unreadable", "exact copy", "contradictory copies")
_NAMED: Final = 3

# What is measured on the test part is what counts, so a copy in it is the one that stays.
_PREFERENCE: Final = ("test", "validation", "train", None)


@dataclass(frozen=True)
class Findings:
    """What a check of a dataset found.

    Attributes:
        manifest: all photos, and what is dropped.
        listing: what the edition says of them.
    """

    manifest: Manifest
    listing: Listing

    @property
    def unreadable(self) -> tuple[Photo, ...]:
        """The photos that cannot be decoded."""
        return tuple(photo for photo in self.manifest.photos if not photo.width)

    @property
    def copies(self) -> tuple[tuple[Photo, ...], ...]:
        """The groups of photos whose files are the same byte for byte, whether kept or dropped."""
        return tuple(tuple(group) for group in _group_copies(self.manifest.photos).values())

    @property
    def lost(self) -> tuple[str, ...]:
        """The classes of which no photo can be used, sorted: all are unreadable or copies, or there is none."""
        lost = {p.label for p in self.manifest.photos if p.label and p.reason in _LOSING}
        if self.manifest.edition.startswith(("GitHub", "Kaggle")):  # whose other labels are dropped anyway
            lost &= {*CLASSES}
        lost |= {*self.listing.empty}
        return tuple(sorted({label for label in lost if not _is_not_sure(label)} - {*self.manifest.classes}))

    def require_classes(self) -> None:
        """Make sure that there is something to learn.

        Raises:
            DatasetError: fewer than two classes have photos that can be used, one of them has none, or has a name that
                no model may have.
        """
        root, classes = self.manifest.root, self.manifest.classes
        of_table = self.manifest.edition == "table"
        rename = "give it another name in the table" if of_table else "rename its folder"
        for name in classes:
            if not is_class_name(name):
                raise DatasetError(f"{root}: the class {name!r} has a name that cannot be shown; {rename}")
            if fold_label(name) in RESERVED:
                raise DatasetError(f"{root}: the class {name} is called like a column of results; {rename}")
        if len(classes) == 1:
            raise DatasetError(f"{root}: there is only one class, {classes[0]}; a classifier needs two or more")
        if not classes:
            reasons = Counter(photo.reason for photo in self.manifest.photos).most_common(_NAMED)
            told = ", ".join(f"{reason} ({count})" for reason, count in reasons)
            unknown = sorted(
                {_detail(p.dropped) for p in self.manifest.photos if p.dropped.startswith("unknown label")}
            )
            if unknown:
                told += (
                    f", such as {', '.join(unknown[:_NAMED])}; images.csv has the Clothing dataset's labels. For "
                    "your own classes put each into a folder of its name, or give `clothing train` the table itself"
                )
            raise DatasetError(f"{root}: none of the {len(self.manifest.photos)} photos can be used: {told}")
        if self.lost:
            away = "their rows" if of_table else "the folder"
            raise DatasetError(
                f"{root}: no photo can be used of {', '.join(self.lost)} (`clothing data check` says why); add photos, "
                f"or take {away} away"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures in the form of JSON; counts are of photos unless a key says otherwise."""
        manifest, listing, kept = self.manifest, self.listing, self.manifest.kept
        parts = [part for part in ("train", "validation", "test") if any(photo.part == part for photo in kept)]
        counts = Counter(photo.label for photo in kept)
        of_part = Counter((photo.part, photo.label) for photo in kept)
        return {
            "root": str(manifest.root),
            "edition": manifest.edition,
            "photos": len(manifest.photos),
            "rows": listing.rows,
            "photos_without_row": len(listing.without_row),
            "rows_without_photo": list(manifest.missing),
            "rows_repeated": listing.repeated,
            "kept": len(kept),
            "classes": {label: counts[label] for label in manifest.classes},
            "parts": {part: {label: of_part[part, label] for label in manifest.classes} for part in parts},
            "dropped": dict(Counter(photo.reason for photo in manifest.photos if photo.dropped).most_common()),
            "unreadable": {photo.path: _detail(photo.dropped) for photo in self.unreadable},
            "exact_copies": [[photo.path for photo in group] for group in self.copies],
            "ignored_files": list(listing.ignored),
            "empty_classes": list(listing.empty),
            "senders": _describe_senders(kept),
            "digest": manifest.digest,
        }


def check_dataset(
    root: Path | Listing,
    *,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    workers: int | None = None,
) -> Findings:
    """List the photos of a dataset, open every one, and decide which are used.

    A photo is dropped if it cannot be read; if its edition gives it no class, an unknown one, or several; if it is
    labelled "not sure", which is not a class but what a model says of it; or if it is a copy, byte for byte, of one
    that is used. Of copies with the same label one stays: that of the test part, then of the validation part, then the
    first by path. If their labels contradict each other, none stays.

    Args:
        root: the dataset's folder, in any edition, or the list of its photos.
        progress: called with the number of photos opened and the number of all.
        limits: on bytes and pixels of a photo.
        workers: how many threads open photos; by default one for each core, at most 8.

    Returns:
        The findings; an unreadable photo is one of them.

    Raises:
        DatasetError: no edition is recognised, see `clothing_classifier.dataset.editions.list_photos`.
    """
    listing = root if isinstance(root, Listing) else list_photos(Path(root))
    photos = [_drop_not_sure(photo) for photo in listing.photos]
    opened: list[Photo] = []
    pool = ThreadPoolExecutor(workers or min(available_cores(), MOST_WORKERS), "open")
    try:
        for photo in pool.map(partial(_open, listing.root, limits), sorted(photos, key=lambda p: p.path)):
            opened.append(photo)
            if progress is not None:
                progress(len(opened), len(listing.photos))
    finally:
        pool.shutdown(cancel_futures=True)
    return Findings(Manifest(listing.root, listing.edition, _drop_copies(opened), listing.missing), listing)


def read_dataset(root: Path, *, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Return the checked manifest of a dataset that something can be learned from.

    Arguments are those of `check_dataset`.

    Raises:
        DatasetError: as `check_dataset`; or fewer than two classes have photos that can be used.
    """
    findings = check_dataset(root, progress=progress)
    findings.require_classes()
    return findings.manifest


def _is_not_sure(label: str) -> bool:
    return canonical_label(label) == "Not sure"


def _drop_not_sure(photo: Photo) -> Photo:
    if photo.dropped or not photo.label or not _is_not_sure(photo.label):
        return photo
    return replace(photo, dropped="label not sure: it is what a model answers when it is not sure")


def _open(root: Path, limits: Limits, photo: Photo) -> Photo:
    path = root / photo.path
    sha256 = ""
    try:
        with path.open("rb") as file:
            sha256 = compute_sha256(file)
        picture = open_picture(path, name=photo.path, limits=limits)
    except PhotoError as error:
        return replace(photo, sha256=sha256, dropped=f"unreadable: {error.reason.removesuffix(RAISE_LIMIT)}")
    except FileNotFoundError:
        return replace(photo, dropped=f"unreadable: {explain_missing(photo.path)}")
    except OSError as error:
        return replace(photo, sha256=sha256, dropped=f"unreadable: cannot be read ({error.strerror})")
    return replace(photo, sha256=sha256, width=picture.width, height=picture.height)


def _group_copies(photos: Sequence[Photo]) -> dict[str, list[Photo]]:
    groups: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        if photo.width:
            groups[photo.sha256].append(photo)
    return {sha256: group for sha256, group in groups.items() if len(group) > 1}


def _drop_copies(photos: Sequence[Photo]) -> tuple[Photo, ...]:
    """Return the photos, of which no two that are kept are copies of each other."""
    dropped: dict[str, str] = {}
    for group in _group_copies([photo for photo in photos if not photo.dropped]).values():
        group.sort(key=lambda photo: (_PREFERENCE.index(photo.part), photo.path))
        if len({photo.label for photo in group}) > 1:
            named = [f"{photo.path} ({photo.label})" for photo in group[:_NAMED]]
            if len(group) > _NAMED:
                named.append(f"and {len(group) - _NAMED} more")
            dropped |= {photo.path: f"contradictory copies: {', '.join(named)}" for photo in group}
            continue
        stays, *others = group
        for photo in others:
            why = f" (the {stays.part} part goes before the {photo.part} part)" if photo.part != stays.part else ""
            dropped[photo.path] = f"exact copy: of {stays.path}{why}"
    return tuple(replace(photo, dropped=dropped.get(photo.path, photo.dropped)) for photo in photos)


def _describe_senders(kept: Sequence[Photo]) -> dict[str, Any] | None:
    counts = Counter(photo.sender for photo in kept if photo.sender is not None)
    if not counts:
        return None
    largest, so_far = [], 0
    # Of senders with the same number the first by name, so that the order of files does not matter.
    for sender, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST_SENDERS]:
        so_far += count
        share, share_so_far = round(count / len(kept), 4), round(so_far / len(kept), 4)
        largest.append({"sender": sender, "photos": count, "share": share, "share_so_far": share_so_far})
    senders: dict[str, set[str]] = defaultdict(set)
    for photo in kept:
        senders[photo.label or ""].add(photo.sender or photo.path)  # a photo without one is a sender of its own
    return {
        "senders": len(counts),
        "photos_without_sender": len(kept) - counts.total(),
        "largest": largest,
        "classes_of_one": sorted(label for label, names in senders.items() if len(names) == 1),
    }


def _detail(dropped: str) -> str:
    return dropped.partition(": ")[2]
