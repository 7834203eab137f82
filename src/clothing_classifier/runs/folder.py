"""A run's folder: what makes it this run, and files that are there whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from clothing_classifier.dataset.manifest import ERRORS, Manifest

if TYPE_CHECKING:
    from clothing_classifier.training.fit import Step

_WRITTEN: Final = (
    *("*checkpoint.pt", "fold-*.npz", "folds.csv", "split.csv", "curves.csv", "cost.json", "evidence.npy"),
    *("manifest.csv", "predictions.csv", "metrics.json", "model.onnx"),
)
"""What runs write, or go on from. Where the configuration that a run begins with is not beside it, it is another run's,
or a person's own, such as the table of ``clothing predict``."""


class RunError(Exception):
    """A run cannot be started or continued; the message names its folder, the reason and what to do."""


class Reporter(Protocol):
    """What a run tells while it goes on; the command line draws progress bars from it."""

    def stage(self, name: str) -> None:
        """Say which stage begins."""

    def note(self, text: str) -> None:
        """Say something that a person should know."""

    def progress(self, done: int, total: int) -> None:
        """Say how far the stage is, in photos."""

    def step(self, step: Step, epochs: int) -> None:
        """Say how far the training is."""


class Silent:
    """A reporter that tells nobody."""

    def stage(self, name: str) -> None:
        """Pass over it."""

    def note(self, text: str) -> None:
        """Pass over it."""

    def progress(self, done: int, total: int) -> None:
        """Pass over it."""

    def step(self, step: Step, epochs: int) -> None:
        """Pass over it."""


def require_apart(out: Path, manifest: Manifest) -> None:
    """Make sure that a run's folder is neither that of the photos nor taken for one of its classes the next time.

    Raises:
        RunError: it is the folder of the photos; or these are in folders of classes, and it lies among them.
    """
    if out.resolve() == manifest.root.resolve():
        raise RunError(f"{out}: is the folder of the photos; choose another --out")
    inside = manifest.root.resolve() in out.resolve().parents
    if inside and manifest.edition.startswith("folder per class"):
        raise RunError(
            f"{out}: lies in the folder of the photos, where folders are classes; choose an --out outside of it, and "
            "take that folder away if it is there"
        )


def require_place(out: Path) -> None:
    """Make sure that a run's folder can be made, or written to, before the photos are looked at for it.

    Raises:
        RunError: it cannot.
    """
    place = next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder))
    try:
        TemporaryDirectory(dir=place).cleanup()
    except OSError as error:
        done = "written to" if place == out else f"made in {place}"
        raise RunError(f"{out}: cannot be {done} ({error.strerror}); choose another --out") from error


def claim(out: Path, config: dict[str, Any]) -> None:
    """Write the run's configuration, or make sure that the folder holds a run of the same one.

    Raises:
        RunError: the folder holds another run, or remains of one.
    """
    file = out / "config.json"
    wanted = json.loads(to_json(config))
    if not file.exists():
        strange = sorted(file.name for pattern in _WRITTEN for file in out.glob(pattern))
        if strange:
            raise RunError(f"{out}: holds {strange[0]} but no config.json; choose another folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(file, to_json(config))
        return
    try:
        found = json.loads(file.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: is damaged; choose another folder with --out, or delete this one") from error
    different = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if different:
        raise RunError(
            f"{out}: holds a run that differs in: {', '.join(different)}; choose another folder with --out, "
            "or repeat that run's command to continue it"
        )


@cache
def find_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, ``None`` for an installed one.

    It is looked up once. A run does so when it starts: by its end the checkout may have gone on to other code.
    """
    here = Path(__file__).resolve().parent
    if not (here.parents[2] / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def to_json(value: Any) -> bytes:
    """Return JSON for people: indented, UTF-8; a file name's bytes that are not UTF-8 stay JSON's escapes."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole: a kill leaves the old one or the new one, never half of one.

    Raises:
        OSError: it cannot be written; the error names it.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_arrays(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Write arrays as one ``.npz`` file, whole."""
    file = BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    write_bytes(path, file.getvalue())


def settle_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], decisive: Sequence[str]) -> None:
    """Write the table of which photo is where, or make sure that the folder's own says the same.

    The data's digest does not cover the senders, who decide which photos are held out together.

    Args:
        path: the table.
        header: its columns.
        rows: its rows.
        decisive: the columns that may not differ from those of the table that is there.

    Raises:
        RunError: they do differ, or the table that is there cannot be read.
    """

    def choose(rows: Iterable[dict[str, str]]) -> list[list[str | None]]:
        return [[row.get(name) for name in decisive] for row in rows]

    if path.exists():
        try:
            same = choose(read_table(path)) == choose(csv.DictReader(StringIO(_to_csv(header, rows), newline="")))
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read ({error}); choose another folder with --out") from error
        if not same:
            raise RunError(
                f"{path}: this run began with other senders, or other photos held out, than the data now give, and "
                "going on would mix both; choose another folder with --out, or restore the data and repeat the command"
            )
    write_table(path, header, rows)


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file, whole."""
    write_bytes(path, _to_csv(header, rows).encode("utf-8", ERRORS))


def _to_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    file = StringIO(newline="")
    # Ends of lines of two characters: else a name with a carriage return would not be quoted, and read as two rows.
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file that `write_table` wrote, by column.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors=ERRORS, newline="") as file:
            return list(csv.DictReader(file))
    except csv.Error as error:
        raise ValueError(str(error)) from error
