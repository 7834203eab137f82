"""The published editions, downloaded into a folder that is whole or absent.

All that is not finished lies in ``DIR.part`` beside the folder, so that the last step is one rename, and so that a
download that was stopped goes on from there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Final

from clothing_classifier.dataset.check import Findings
from clothing_classifier.dataset.download import PAUSES, TRY_AGAIN, FetchError, Lost, Reporter, download, persist
from clothing_classifier.dataset.editions import list_photos
from clothing_classifier.dataset.manifest import DatasetError

GITHUB: Final = "https://codeload.github.com/alexeygrigorev/clothing-dataset/zip/refs/heads/master"
KAGGLE: Final = "agrigorev/clothing-dataset-full"

PUBLISHED_PHOTOS: Final = 5756
PUBLISHED_ROWS: Final = 5403

# Photos hardly shrink in an archive; one that grows more than this is made to fill the disk.
_LARGEST_GROWTH: Final = 10
_ALWAYS_ALLOWED: Final = 64 * 2**20

_PIECE: Final = 2**20


def fetch_github(folder: Path, reporter: Reporter, *, url: str = GITHUB, pauses: Sequence[float] = PAUSES) -> None:
    """Download GitHub's edition: 5,756 photos with a short side of 400 pixels.

    Args:
        folder: where it goes; must not be there yet, or be empty.
        reporter: what is told of the progress.
        url: a ZIP archive of the dataset, over HTTPS.
        pauses: seconds to wait before each further attempt.

    Raises:
        FetchError: it did not arrive, or what arrived is damaged, dangerous or something else. The folder is as it
            was; what is worth keeping is in ``DIR.part``.
        DatasetError: the folder is in use.
    """
    with _workshop(folder) as (folder, workshop):
        archive = workshop / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.zip"  # another address, another archive
        if not archive.exists():
            download(url, archive, reporter, pauses=pauses)
        unpacked = workshop / "unpacked"
        try:
            with _writing(folder):
                shutil.rmtree(unpacked, ignore_errors=True)
                unpacked.mkdir()
                _unpack(archive, unpacked, reporter)
        except _BadArchive as error:
            shutil.rmtree(workshop, ignore_errors=True)
            raise FetchError(f"{url}: {error}; it is deleted, run the command again to download it anew") from error
        _finish(url, unpacked, folder, workshop)


def fetch_kaggle(folder: Path, reporter: Reporter) -> None:
    """Download Kaggle's edition with kagglehub: the same photos as the cameras took them, and smaller ones.

    The download does not go through kagglehub's own cache, where it would take its gigabytes twice.

    Args:
        folder: where it goes; must not be there yet, or be empty.
        reporter: what is told of the progress; kagglehub shows its own on standard error.

    Raises:
        FetchError: it did not arrive. The folder is as it was; what has arrived is in ``DIR.part``.
        DatasetError: the folder is in use, or kagglehub is not installed.
    """
    try:
        # kagglehub writes its messages to what is standard output when it is imported; that is for the report.
        with redirect_stdout(sys.stderr):
            import kagglehub
    except ImportError as error:
        raise DatasetError(
            'the download from Kaggle needs kagglehub: pip install "clothing-classifier[train]"'
        ) from error

    with _workshop(folder) as (folder, workshop):
        cache = workshop / "kagglehub"

        def attempt() -> Path:
            try:
                return Path(kagglehub.dataset_download(KAGGLE))
            except Exception as error:  # kagglehub's own, those of its HTTP library, of archives and of the system
                raise _explain_kagglehub(error, cache) from error

        def arrived() -> int:
            return sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())

        with redirect_stdout(sys.stderr), _environment("KAGGLEHUB_CACHE", str(cache)):
            found = persist("Kaggle", attempt, arrived, reporter, PAUSES)
        if not found.is_relative_to(cache):  # on Kaggle's own machines it is a folder that is already there
            with _writing(folder):
                shutil.rmtree(workshop / "unpacked", ignore_errors=True)
                found = shutil.copytree(found, workshop / "unpacked")
        _finish("Kaggle", found, folder, workshop)


def compare_with_published(findings: Findings) -> tuple[str, ...]:
    """Return in words how the counts of photos and rows differ from those of the published editions."""
    counts = (
        ("photos", len(findings.manifest.photos), PUBLISHED_PHOTOS),
        ("rows", findings.listing.rows or 0, PUBLISHED_ROWS),
    )
    return tuple(
        f"there are {found:,} {what}; the published edition has {published:,}"
        for what, found, published in counts
        if found != published
    )


# -------------------------------------------------------------------------------------------------------- folders


@contextmanager
def _workshop(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Give the folder as an absolute path, and the one beside it for all that is not finished."""
    folder = Path(os.path.realpath(folder))
    workshop = folder.with_name(folder.name + ".part")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DatasetError(
                f"{folder}: is there already; `clothing data check` tells what it holds, or choose another folder"
            )
        if folder == Path.cwd():
            raise DatasetError(f"{folder}: is the current folder, which cannot be replaced; name a new one in it")
        workshop.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    try:
        yield folder, workshop
    finally:
        with suppress(OSError):
            workshop.rmdir()  # if nothing has arrived


def _finish(origin: str, source: Path, folder: Path, workshop: Path) -> None:
    """Put what has arrived into its place, if it is a dataset."""
    try:
        list_photos(source)
    except DatasetError as error:
        shutil.rmtree(workshop, ignore_errors=True)
        raise FetchError(f"{origin}: what arrived is not the dataset, and is deleted ({error})") from error
    with _writing(folder):
        content = list(source.iterdir())
        while len(content) == 1 and content[0].is_dir():  # the folder that an archive puts around everything
            source = content[0]
            content = list(source.iterdir())
        if folder.exists():
            folder.rmdir()
        source.rename(folder)
    shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"{error.filename or folder}: cannot be written ({error.strerror}); make room or choose another folder, "
            "then run the command again to go on"
        ) from error


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# ------------------------------------------------------------------------------------------------------- archives


class _BadArchive(Exception):
    """What arrived is not a whole, harmless ZIP archive."""


def _unpack(archive: Path, target: Path, reporter: Reporter) -> None:
    """Unpack an archive into an empty folder; the checksum of every file in it is checked.

    Raises:
        _BadArchive: it is damaged, or would write elsewhere or without end.
        OSError: a file cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            total = sum(member.file_size for member in members)
            if total > _LARGEST_GROWTH * archive.stat().st_size + _ALWAYS_ALLOWED:
                raise _BadArchive(f"the archive would unpack to {total:,} bytes, too many for its size")
            for member in members:
                _check_member(member)
            done = 0
            for member in members:
                path = target.joinpath(*member.filename.split("/"))
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, path.open("xb") as file:
                    while piece := source.read(_PIECE):
                        file.write(piece)
                        done += len(piece)
                reporter.advance("Unpacking", done, total)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise _BadArchive(f"what arrived is not a whole ZIP archive ({error})") from error


def _check_member(member: zipfile.ZipInfo) -> None:
    names = member.filename.split("/")
    if any(name in ("", ".", "..") or "\\" in name or ":" in name for name in names):
        raise _BadArchive(f"the archive holds a file that would be written elsewhere: {member.filename!r}")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _BadArchive(f"the archive holds a link: {member.filename!r}")
    if member.flag_bits & 1:
        raise _BadArchive(f"the archive holds an encrypted file: {member.filename!r}")


# --------------------------------------------------------------------------------------------------------- Kaggle


def _explain_kagglehub(error: Exception, cache: Path) -> Exception:
    """Return the exception to raise for a failure of kagglehub, and delete what is not worth keeping."""
    # The exceptions of requests, which kagglehub uses, are OSErrors; a refusal has the response, nothing an errno.
    status = getattr(getattr(error, "response", None), "status_code", None)
    number = error.errno if isinstance(error, OSError) else None
    text = " ".join(str(error).split()) or type(error).__name__
    if status in TRY_AGAIN:
        return Lost(f"Kaggle answered {status}")
    if status in (401, 403) or type(error).__name__ in ("UnauthenticatedError", "CredentialError"):
        return FetchError(
            f"Kaggle refuses the download of {KAGGLE}; make an access token in your account's settings on kaggle.com, "
            "put it into the environment as KAGGLE_API_TOKEN or into ~/.kaggle/access_token, and run the command again"
        )
    if status is not None:
        return FetchError(f"Kaggle answered {status} for {KAGGLE}; try again later, or fetch from github ({text})")
    if type(error).__name__ == "DataCorruptionError":  # kagglehub has deleted it
        return Lost("what arrived from Kaggle is damaged")
    if isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and number is None):
        return Lost(f"the connection to Kaggle is lost, or there is none ({type(error).__name__})")
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
        return FetchError(f"{cache}: cannot be written ({text}); make room, then run the command again to go on")
    damaged = isinstance(error, zipfile.BadZipFile | tarfile.TarError | zlib.error | EOFError)
    if damaged or text.startswith("Unsupported archive"):
        shutil.rmtree(cache, ignore_errors=True)  # kagglehub would take it for the beginning of a whole one
        return FetchError(
            f"Kaggle: what arrived is not a whole archive ({text}); it is deleted, run the command again to download "
            "it anew"
        )
    return FetchError(f"kagglehub cannot download {KAGGLE}: {text[:500]}; run the command again, or fetch from github")
