"""Rows of predictions as text: a table for people, csv and jsonl for programs, and what a stopped run left of these."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import click

from clothing_classifier.cli import printable

if TYPE_CHECKING:
    from clothing_classifier.bulk import Row

Layout = Literal["table", "csv", "jsonl"]
LAYOUTS: Final[tuple[Layout, ...]] = ("table", "csv", "jsonl")

ERRORS: Final = sys.getfilesystemencodeerrors()
"""A file name is bytes, and not always UTF-8; with the file system's error handler they come out as they are."""


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

    width = max(len(label) for label in labels)
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
        cells = f"{text:<{answer}}  {probability:>11.1%}  "
        cells += "".join(f"{other:<{width}}  {share:>7.1%}  " for other, share in others)
        print(f"{cells}{path}", file=stream)

    return write


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
    return '"' + value.replace('"', '""') + '"' if any(c in value for c in ',"\r\n') else value


@dataclass(frozen=True, slots=True)
class Kept:
    """The whole rows that a run left in its file.

    Attributes:
        size: how many bytes of the file they and their header take; what follows is half a row.
        paths: how many rows each photo has.
        counts: how many rows are of photos that are "sure", "unsure" and "failed".
    """

    size: int = 0
    paths: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)


def read_kept(file: Path, layout: Layout, top: int) -> Kept:
    """Read back what a stopped run left in its file, which may end within a row.

    Args:
        file: csv or jsonl, as `make_writer` writes it.
        layout: which of the two.
        top: how many classes the rows shall tell of each photo.

    Raises:
        ClickException: the file holds anything else; the message names the line.
        OSError: it cannot be read.
    """
    paths, counts, size, line = Counter[str](), Counter[str](), 0, 1
    for text in _whole(file, quoted=layout == "csv"):
        if not (layout == "csv" and size == 0):
            try:
                row = _parse(text, layout, top)
                paths[row["path"]] += 1
                counts["failed" if row["error"] else "sure" if row["sure"] in (True, "true") else "unsure"] += 1
            except (ValueError, csv.Error, RecursionError) as error:
                raise _foreign(file, line, layout, top) from error
        elif text.rstrip(b"\r\n").decode("utf-8", ERRORS) != ",".join(columns(top)):
            raise _foreign(file, line, layout, top)
        size += len(text)
        line += text.count(b"\n")
    return Kept(size, paths, counts)


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


def _foreign(file: Path, line: int, layout: Layout, top: int) -> click.ClickException:
    return click.ClickException(
        f"{printable(str(file))}: line {line} is not what this command writes ({layout}, --top {top}), so it cannot go "
        "on there; give the options of the run that was stopped, or another --out"
    )
