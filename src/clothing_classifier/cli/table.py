"""Predictions as text: rows for people and for programs, what a stopped run left of these, and figures."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import textwrap
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import click

from clothing_classifier.cli import measure_width, pad, printable

if TYPE_CHECKING:
    from clothing_classifier.bulk import Row

Layout = Literal["table", "csv", "jsonl"]
LAYOUTS: Final[tuple[Layout, ...]] = ("table", "csv", "jsonl")

_WIDTH: Final = 100
_INDENT: Final = 14

ERRORS: Final = sys.getfilesystemencodeerrors()
"""A file name is bytes, and not always UTF-8; with the file system's error handler they come out as they are."""

_SAMPLES: Final = 3
"""Rows whose photos a run that goes on predicts again, to tell another model by."""

JUDGED: Final = ("path", "label", "predicted", "probability", "sure", "right", "error")
"""The columns of csv where the photos' true labels are known."""


def columns(top: int) -> list[str]:
    """Return the columns of csv and the keys of jsonl, for ``top`` classes a photo."""
    further = [f"{column}_{rank}" for rank in range(2, top + 1) for column in ("label", "probability")]
    return ["path", "label", "probability", "sure", "error", *further]


def make_writer(
    layout: Layout, stream: TextIO, labels: Sequence[str], top: int, *, header: bool = True
) -> Callable[[Row], None]:
    """Return what writes a row to a stream.

    Args:
        layout: how rows are written.
        stream: where to.
        labels: the model's classes.
        top: how many of them to tell of each photo.
        header: whether a table's or csv's header is written, at once.
    """
    if layout == "jsonl":
        return lambda row: print(json.dumps(_values(row, top)), file=stream)
    if layout == "csv":
        if header:
            print(*columns(top), sep=",", file=stream)
        return lambda row: print(*map(_cell, _values(row, top).values()), sep=",", file=stream)

    width = max(map(measure_width, labels))
    answer = width + len("not sure, ?")
    title = f"{'answer':<{answer}}  {'probability':>11}  "
    title += "".join(f"{'then':<{width}}  {'':>7}  " for _ in range(top - 1))
    if header:
        print(f"{title}photo", file=stream)

    def write(row: Row) -> None:
        path = printable(row.path)
        if row.prediction is None:
            print(f"{'could not be read':<{len(title) - 2}}  {path}: {printable(row.error or '')}", file=stream)
            return
        (label, probability), *others = row.prediction.top(top)
        text = label if row.prediction.sure else f"not sure, {label}?"
        cells = f"{pad(text, answer)}  {probability:>11.1%}  "
        cells += "".join(f"{pad(other, width)}  {share:>7.1%}  " for other, share in others)
        print(f"{cells}{path}", file=stream)

    return write


def make_judged_writer(stream: TextIO) -> Callable[[Row, str], None]:
    """Return what writes a row and the photo's true label to a stream, as csv; the header is written at once."""
    print(*JUDGED, sep=",", file=stream)

    def write(row: Row, label: str) -> None:
        found = row.prediction
        said = (found.label, found.probability, found.sure, found.label == label) if found else (None,) * 4
        print(*map(_cell, (row.path, label, *said, row.error)), sep=",", file=stream)

    return write


def describe_classes(figures: Mapping[str, Any], counts: Mapping[str, int] | None = None) -> Iterator[str]:
    """Yield a table of the classes, a line each; one that neither was shown nor is named by an answer is left out.

    Args:
        figures: as `clothing_classifier.evaluation.metrics.measure` gives them.
        counts: how many photos to tell of each class; by default those that the figures are of.
    """
    classes, width = figures["per_class"], max(map(measure_width, (*figures["per_class"], "class")))
    yield f"{'class':<{width}}  photos  precision  recall     F1  most often mistaken for"
    for number, (label, row) in enumerate(classes.items()):
        if not row["photos"] and not any(answers[number] for answers in figures["confusion"]):
            continue
        mistakes = list(figures["confusion"][number])
        mistakes[number] = 0
        worst = max(mistakes)
        other = f"{list(classes)[mistakes.index(worst)]} ({worst} of {row['photos']})" if worst else ""
        # Of a class without photos, only the answers that name it can be judged.
        found = (f"{row['recall']:.3f}", f"{row['f1']:.3f}") if row["photos"] else ("–", "–")
        count = row["photos"] if counts is None else counts[label]
        cells = f"{count:>6}  {row['precision']:>9.3f}  {found[0]:>6}  {found[1]:>5}  {other}"
        yield f"{pad(label, width)}  {cells}".rstrip()


def _values(row: Row, top: int) -> dict[str, str | float | bool | None]:
    """Return the row's columns in their order; ``None`` where it has nothing to say."""
    prediction = row.prediction
    ranked = prediction.top(top) if prediction else [(None, None)] * top
    (label, probability), *others = ranked
    values = [row.path, label, probability, prediction.sure if prediction else None, row.error]
    return dict(zip(columns(top), [*values, *(value for pair in others for value in pair)], strict=True))


def _cell(value: str | float | bool | None) -> str:
    """Return a value as a cell of csv."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6f}"
    # RFC 4180. Python's csv.writer leaves a lone carriage return in a file's name unquoted, and readers stumble on it.
    # A spreadsheet may part cells at a semicolon or a tab, and take what follows in a name for a formula.
    return '"' + value.replace('"', '""') + '"' if any(c in value for c in ',;\t"\r\n') else value


def describe_entry(title: str, text: str, indent: int = _INDENT) -> Iterator[str]:
    """Yield a title and its text, which goes on below itself where it is longer than a line."""
    yield wrap(pad(printable(title), indent), text, indent)


def wrap(first: str, text: str, indent: int) -> str:
    """Return a text that begins after ``first`` and goes on below at ``indent`` where it is longer than a line."""
    # Words are never broken, so that paths and digests can be copied.
    return textwrap.fill(
        printable(text),
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def list_some(names: Sequence[str], most: int) -> str:
    """Return the first of some names, and how many more there are."""
    more = [f"and {len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def spare_input(out: Path, given: Iterable[str]) -> None:
    """Make sure that the output replaces no photo, whether named or in a folder, and nothing else that is read.

    Args:
        out: the file to write.
        given: what is read; ``-`` stands for standard input.

    Raises:
        UsageError: it is one of these files, or named like a picture, or its folder is not there.
    """
    from clothing_classifier.images import SUFFIXES

    if not out.parent.is_dir():
        raise click.UsageError(f"{printable(str(out))}: its folder does not exist; make it, or choose another --out")

    if out.suffix.lower() in SUFFIXES:
        raise click.UsageError(f"{printable(str(out))}: is --out and named like a picture; choose another --out")
    for path in given:
        with suppress(OSError):  # one of them is not there, or no file
            read = os.fstat(sys.stdin.fileno()) if path == "-" else os.stat(path)
            if out.is_file() and os.path.samestat(read, out.stat()):
                raise click.UsageError(f"{printable(str(out))}: is --out and what is to be read; choose another --out")


def open_rows(out: Path, mode: Literal["w", "a"]) -> TextIO:
    """Open a file for rows.

    Raises:
        ClickException: it cannot be written.
    """
    try:
        return out.open(mode, encoding="utf-8", errors=ERRORS, newline="")
    except OSError as error:
        raise click.ClickException(
            f"{printable(str(out))}: cannot be written ({error.strerror}); choose another --out"
        ) from error


@contextmanager
def hold(out: Path) -> Iterator[None]:
    """Keep a file to this run while it writes there: the rows of two at once would be mixed.

    What is locked is a hidden file beside it, since `arrange` replaces the file itself; the lock ends with the run,
    however that ends. Nothing is held of a pipe or a device, nor where no such file can be made or locked.

    Raises:
        ClickException: another run holds it.
    """
    lock = Path(os.path.realpath(out))  # two links to one file have one lock
    lock = lock.with_name(f".{lock.name}.lock")
    with ExitStack() as stack:
        if out.is_file() or not out.exists():
            with suppress(OSError):
                number = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
                if os.name == "nt":  # an open file is not removed there, and so this one only if nobody else has it
                    stack.callback(_remove, lock)
                stack.callback(os.close, number)
                if not _lock(number, lock):
                    raise click.ClickException(
                        f"{printable(str(out))}: another run writes to it; wait for its end, or choose another --out"
                    )
                stack.callback(_remove, lock)  # before it is closed, so that nobody else holds what is removed
        yield


def _lock(number: int, lock: Path) -> bool:
    """Lock an open file, where that can be done; return whether nobody else has done so."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(number), lock.stat())
    except (BlockingIOError, PermissionError, FileNotFoundError):  # the last: who had it has just removed it
        return False
    except (OSError, ImportError):  # a file system without locks
        return True


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


@dataclass(frozen=True, slots=True)
class Kept:
    """What a stopped run left of use in its file: the rows of photos that it could read.

    Attributes:
        first: by photo, which of these rows, counted from 0, is the first of its own.
        further: the others of a photo that was named several times.
        rows: which rows of the file these are, counted from 0.
        counts: how many of them are "sure" and "unsure".
        alone: whether the file holds nothing else.
        samples: what the first of the rows say, label and probability by photo.
    """

    first: dict[str, int] = field(default_factory=dict)
    further: dict[str, list[int]] = field(default_factory=dict)
    rows: array[int] = field(default_factory=lambda: array("Q"))
    counts: Counter[str] = field(default_factory=Counter)
    alone: bool = True
    samples: dict[str, tuple[str, float]] = field(default_factory=dict)

    def find(self, path: str, passed: int) -> int | None:
        """Return which of these rows is a photo's, after so many of its rows, if there is one."""
        if passed == 0:
            return self.first.get(path)
        further = self.further.get(path, ())
        return further[passed - 1] if passed <= len(further) else None


def read_kept(file: Path, layout: Layout, top: int, labels: Collection[str], threshold: float) -> Kept:
    """Read back what a stopped run left in its file, which may end within a row.

    Args:
        file: csv or jsonl, as `make_writer` writes it.
        layout: which of the two.
        top: how many classes the rows shall tell of each photo.
        labels: the classes that they may name.
        threshold: the probability from which on they shall be sure.

    Raises:
        ClickException: the file holds anything else; the message names the line.
        OSError: it cannot be read.
    """
    kept, size, line = Kept(), 0, 1
    number = -1 if layout == "csv" else 0  # the header is no row
    for text in _whole(file, quoted=layout == "csv"):
        try:
            if number < 0:
                if text.rstrip(b"\r\n").decode("utf-8", ERRORS) != ",".join(columns(top)):
                    raise ValueError("not such a header")
            else:
                row = _parse(text, layout, top)
                if not row["error"]:  # what could not be read may be readable now
                    kept.counts[_judge(row, labels, threshold)] += 1
                    if kept.first.setdefault(row["path"], len(kept.rows)) != len(kept.rows):
                        kept.further.setdefault(row["path"], []).append(len(kept.rows))
                    kept.rows.append(number)
                    if len(kept.samples) < _SAMPLES:
                        kept.samples[row["path"]] = row["label"], float(row["probability"])
        except _OtherRun as error:
            raise _foreign(file, line, str(error)) from error
        except (ValueError, TypeError, csv.Error, RecursionError) as error:
            raise _foreign(file, line, f"is not what this command writes ({layout}, --top {top})") from error
        number += 1
        size += len(text)
        line += text.count(b"\n")
    return replace(kept, alone=len(kept.rows) == number and size == file.stat().st_size)


def arrange(file: Path, layout: Layout, rows: Iterable[int]) -> None:
    """Write a file of rows anew with some of its rows, in any order.

    However hard it is stopped, the file is as it was, or as it shall be.

    Args:
        file: csv or jsonl, as `make_writer` writes it.
        layout: which of the two.
        rows: which of its rows, counted from 0, in their new order.

    Raises:
        OSError: it cannot be read or written.
    """
    header = int(layout == "csv")
    ends = array("Q", accumulate(map(len, _whole(file, quoted=layout == "csv")), initial=0))
    file = file.resolve()  # of a link, the link stays
    partial = file.with_name(f"{file.name}.partial")
    try:
        with file.open("rb") as old, partial.open("wb") as new:
            new.write(old.read(ends[header]))
            for row in rows:
                start, end = ends[row + header : row + header + 2]
                old.seek(start)
                new.write(old.read(end - start))
            new.flush()
            os.fsync(new.fileno())
        shutil.copymode(file, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


class _OtherRun(ValueError):
    """A row is of a run with other options; the message says of which."""


def _judge(row: Mapping[str, Any], labels: Collection[str], threshold: float) -> str:
    """Return whether a row is "sure" or "unsure", if it is what the model would say of some photo."""
    for column, value in row.items():
        if column.startswith("label") and value not in labels:
            raise _OtherRun(f"is of another --model, for this one has no class {value}")
    probability, sure = float(row["probability"]), row["sure"] in (True, "true")
    if not 0 <= probability <= 1 or not (sure or row["sure"] in (False, "false")):
        raise ValueError("not such a row")
    # What is written was rounded before it was decided on, so reading it decides the same.
    if sure != (probability >= threshold):
        raise _OtherRun(f"is of another --threshold, for {probability:.6f} is {'not ' * sure}sure at {threshold:g}")
    return "sure" if sure else "unsure"


def _foreign(file: Path, line: int, reason: str) -> click.ClickException:
    return click.ClickException(
        f"{printable(str(file))}: line {line} {printable(reason)}, so it cannot go on there; give the options of the "
        "run that was stopped, or another --out"
    )


def _whole(file: Path, *, quoted: bool) -> Iterator[bytes]:
    """Yield the file's rows, each with its line's end; not the last one if it has none."""
    row, quotes = bytearray(), 0
    with file.open("rb") as lines:
        for line in lines:
            row += line
            quotes += line.count(b'"')
            if line.endswith(b"\n") and not (quoted and quotes % 2):
                yield bytes(row)
                row, quotes = bytearray(), 0


def _parse(text: bytes, layout: Layout, top: int) -> dict[str, Any]:
    row: Any
    if layout == "jsonl":
        row = json.loads(text)
    else:
        row = dict(zip(columns(top), next(csv.reader([text.decode("utf-8", ERRORS)], strict=True)), strict=True))
    if not isinstance(row, dict) or list(row) != columns(top) or not isinstance(row["path"], str):
        raise ValueError("not such a row")
    return row
