"""``clothing predict``: photos → a table of predictions."""

from __future__ import annotations

import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from clothing_classifier.cli import Number, printable, provider_option

if TYPE_CHECKING:
    from clothing_classifier.bulk import Row
    from clothing_classifier.execution import Choice

_LAYOUTS = ("table", "csv", "jsonl")


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(readable=False), metavar="PHOTO|FOLDER|-...")
@click.option(
    "--model",
    type=click.Path(readable=False),
    help="A model file, such as the model.onnx of a `clothing train` run. By default the model that ships.",
)
@click.option(
    "--top", default=1, show_default=True, type=click.IntRange(1), help="How many classes to tell of each photo."
)
@click.option(
    "--format",
    "layout",
    type=click.Choice(_LAYOUTS),
    help="table is for people; csv and jsonl, in UTF-8, are for programs. By default what the suffix of --out says, "
    "and table on standard output.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.option(
    "--threshold",
    type=Number(0, 1),
    help='Below this probability the answer is "not sure".  [default: the model\'s own]',
)
@click.option(
    "--max-bytes", type=click.IntRange(1), help="Largest size of a photo's file, in bytes.  [default: 67108864]"
)
@click.option(
    "--max-megapixels",
    type=Number(0, min_open=True),
    help="Largest size of a photo, in millions of pixels.  [default: 120]",
)
@click.option("--threads", type=click.IntRange(1), help="How many threads decode and compute.  [default: the cores]")
@provider_option
def command(
    photos: tuple[str, ...],
    model: str | None,
    top: int,
    layout: str | None,
    out: Path | None,
    threshold: float | None,
    max_bytes: int | None,
    max_megapixels: float | None,
    threads: int | None,
    provider: Choice,
) -> None:
    """Classify photos, one row each.

    A FOLDER stands for all picture files in it and below, without hidden ones. - stands for a list of paths on
    standard input, one a line.

    csv has the columns path, label, probability, sure (true or false) and error, then label_2, probability_2 and so
    on up to --top; jsonl has the same keys. label is always the most probable class; a table says "not sure" where the
    probability is below the threshold, with that class beside it.

    A photo that cannot be read is a row with its reason, and the others go on. Rows are written as they come, and a
    run that is stopped keeps those it has.

    Exit codes: 0, all photos are classified; 1, some could not be read; 2, the usage is wrong or the model cannot be
    used; 130, stopped.
    """
    layout = layout or _layout_of(out)

    from clothing_classifier.bulk import find_photos, predict_photos, share_cores
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.images import DEFAULT_LIMITS, Limits, PhotoError

    for path in photos:
        if path != "-" and os.path.isdir(path):
            first = next(find_photos([path]))
            if isinstance(first, PhotoError) and first.name == path:
                raise click.ClickException(f"{printable(path)}: {first.reason}")
    limits = Limits(
        max_bytes=max_bytes or DEFAULT_LIMITS.max_bytes,
        max_pixels=max(1, round(max_megapixels * 1e6)) if max_megapixels else DEFAULT_LIMITS.max_pixels,
    )
    # One photo is computed by all cores together; of many, each core computes its own.
    alone = len(photos) == 1 and photos[0] != "-" and not os.path.isdir(photos[0])
    workers, together = (1, threads) if alone else share_cores(threads)
    classifier = Classifier.load(model, limits=limits, threshold=threshold, threads=together, provider=provider)

    counts = Counter[str]()
    with ExitStack() as stack:
        stream = _standard_output(layout) if out is None else stack.enter_context(_create(out))
        write = _writer(layout, stream, classifier.labels, min(top, len(classifier.labels)))
        rows = predict_photos(classifier, find_photos(_listed(photos)), threads=workers)
        shown: Iterable[Row] = stack.enter_context(closing(rows))
        if sys.stderr.isatty() and not stream.isatty():
            length = None if "-" in photos else sum(1 for _ in find_photos(photos))
            shown = stack.enter_context(click.progressbar(shown, length, file=sys.stderr, show_pos=True))
        try:
            for row in shown:
                write(row)
                stream.flush()
                counts["failed" if row.prediction is None else "sure" if row.prediction.sure else "unsure"] += 1
        except KeyboardInterrupt:
            click.echo(f"\nStopped. The rows of {counts.total()} photos are written.", err=True)
            raise
    click.echo(
        f"{counts.total()} photos: {counts['sure']} sure, {counts['unsure']} not sure, "
        f"{counts['failed']} could not be read",
        err=True,
    )
    if counts["failed"]:
        sys.exit(1)


def _layout_of(out: Path | None) -> str:
    if out is None:
        return "table"
    layout = out.suffix.lower().removeprefix(".")
    if layout not in ("csv", "jsonl"):
        raise click.UsageError(f"{printable(str(out))}: name it .csv or .jsonl, or say which --format it shall have")
    return layout


def _listed(photos: Iterable[str]) -> Iterator[str]:
    for path in photos:
        if path != "-":
            yield path
            continue
        for line in sys.stdin.buffer:
            if line.strip():
                yield os.fsdecode(line.rstrip(b"\r\n"))


# A file name is bytes, and not always UTF-8; with the file system's error handler they come out as they are.
_ERRORS = sys.getfilesystemencodeerrors()


def _create(out: Path) -> TextIO:
    return out.open("w", encoding="utf-8", errors=_ERRORS, newline="")


def _standard_output(layout: str) -> TextIO:
    if isinstance(sys.stdout, io.TextIOWrapper):
        if layout == "table":
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors=_ERRORS, newline="")
    return sys.stdout


def _writer(layout: str, stream: TextIO, labels: Sequence[str], top: int) -> Callable[[Row], None]:
    """Return what writes a row to the stream; for a table and csv, the header is written at once."""
    if layout == "jsonl":
        return lambda row: print(json.dumps(_values(row, top)), file=stream)
    if layout == "csv":
        further = [f"{column}_{rank}" for rank in range(2, top + 1) for column in ("label", "probability")]
        print("path", "label", "probability", "sure", "error", *further, sep=",", file=stream)
        return lambda row: print(*map(_cell, _values(row, top).values()), sep=",", file=stream)

    width = max(len(label) for label in labels)
    answer = width + len("not sure, ?")
    title = f"{'answer':<{answer}}  {'probability':>11}  "
    title += "".join(f"{'then':<{width}}  {'':>7}  " for _ in range(top - 1))
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
    values: dict[str, str | float | bool | None] = {
        "path": row.path,
        "label": ranked[0][0],
        "probability": ranked[0][1],
        "sure": prediction.sure if prediction else None,
        "error": row.error,
    }
    for rank, (label, probability) in enumerate(ranked[1:], 2):
        values |= {f"label_{rank}": label, f"probability_{rank}": probability}
    return values


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
