"""``clothing predict``: photos → a table of predictions."""

from __future__ import annotations

import codecs
import io
import os
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import click

from clothing_classifier.cli import computing_options, counted, make_limits, model_option, printable, threshold_option
from clothing_classifier.cli.table import (
    ERRORS,
    LAYOUTS,
    Kept,
    Layout,
    arrange,
    hold,
    make_writer,
    open_rows,
    read_kept,
    spare_input,
)

if TYPE_CHECKING:
    from clothing_classifier.bulk import Row
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.execution import Choice
    from clothing_classifier.images import PhotoError

_PICTURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # JPEG, PNG: no path begins so


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(readable=False), metavar="PHOTO|FOLDER|-...")
@model_option
@click.option(
    "--top", default=1, show_default=True, type=click.IntRange(1), help="How many classes to show for each photo."
)
@click.option(
    "--format",
    "layout",
    type=click.Choice(LAYOUTS),
    help="table is for people; csv and jsonl, in UTF-8, are for programs. By default what the suffix of --out says, "
    "and table on standard output.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file; an existing one is replaced, except with --resume.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a stopped run, with its options: rows in --out stay, and their photos are passed over; photos that "
    "could not be read are tried again.",
)
@threshold_option
@computing_options
def command(
    photos: tuple[str, ...],
    model: str | None,
    top: int,
    layout: Layout | None,
    out: Path | None,
    resume: bool,
    threshold: float | None,
    max_bytes: int | None,
    max_megapixels: float | None,
    threads: int | None,
    provider: Choice,
) -> None:
    """Classify photos, one row each.

    A FOLDER stands for all files in it and below that have a picture's suffix, without hidden ones; linked folders in
    it are not entered. - stands for a list of paths on standard input, one a line, in UTF-8, or as find -print0 writes
    it.

    csv has the columns path, label, probability, sure (true or false) and error, then label_2, probability_2 and so
    on up to --top; jsonl has the same keys. label is always the most probable class; a table says "not sure" where the
    probability is below the threshold, with that class beside it.

    A photo that cannot be read is a row with its reason, and the others go on. Rows are written while the run
    goes on, a few photos late; a run that is stopped keeps them, and --resume goes on from there.

    Exit codes: 0, all photos are classified; 1, some could not be read; 2, the usage is wrong, the model cannot be
    used, or anything else failed; 130, stopped.
    """
    layout = layout or _layout_of(out)
    if resume and (out is None or layout == "table"):
        raise click.UsageError("--resume needs an --out of csv or jsonl, which an earlier run has begun")
    if out is not None:
        spare_input(out, photos)

    from clothing_classifier.bulk import find_photos, predict_photos
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.machine import share_cores

    _require_photos(photos)
    limits = make_limits(max_bytes, max_megapixels)
    # One photo is computed by all cores together; of many, each core computes its own.
    alone = len(photos) == 1 and photos[0] != "-" and not os.path.isdir(photos[0])
    workers, together = (1, threads) if alone else share_cores(threads)
    if alone and provider == "auto":
        provider = "cpu"  # it has said what one photo shows before another has been opened and compared with it
    classifier = Classifier.load(model, limits=limits, threshold=threshold, threads=together, provider=provider)
    top = min(top, len(classifier.labels))
    passed_over = Counter[str]()
    found: Iterator[str | PhotoError] = find_photos(_listed(photos), passed_over)
    if out is not None:
        click.get_current_context().with_resource(hold(out))
    kept, order = Kept(), array("Q")
    if resume and out is not None and out.is_file():
        kept = read_kept(out, layout, top, frozenset(classifier.labels), classifier.threshold)

    counts, before = kept.counts, len(kept.rows)
    with ExitStack() as stack:
        if out is None:
            stream = _standard_output(layout)
        else:
            if kept.rows:
                found = _without_kept(_require_common(found, kept, out), kept, order)
                _require_same_model(classifier, kept, out)
                if not kept.alone:
                    _arrange(out, layout, kept.rows, counts)
            stream = open_rows(out, "a" if kept.rows else "w")
            stack.enter_context(stream)
        write = make_writer(layout, stream, classifier.labels, top, header=not kept.rows)
        rows = predict_photos(classifier, found, threads=workers, slow="-" in photos)
        shown: Iterable[Row] = stack.enter_context(closing(rows))
        if sys.stderr.isatty() and not stream.isatty():
            new = _without_kept(find_photos(photos), kept, array("Q"))
            length = None if "-" in photos else sum(1 for _ in new)
            shown = stack.enter_context(click.progressbar(shown, length, file=sys.stderr, show_pos=True))
        try:
            for row in shown:
                try:
                    write(row)
                    stream.flush()
                except OSError as error:
                    if out is None:
                        raise
                    with suppress(OSError):  # it would be raised again where the file is closed
                        stream.close()
                    raise _unwritable(out, error, counts, layout) from error
                counts["failed" if row.prediction is None else "sure" if row.prediction.sure else "unsure"] += 1
        except KeyboardInterrupt:
            on = "; --resume goes on from there" if out is not None and layout != "table" else ""
            click.echo(f"\nStopped. The rows of {counted(counts.total(), 'photo')} are written{on}.", err=True)
            raise
    others = sorted(set(range(before)).difference(order))
    if out is not None and any(row > following for row, following in pairwise(order)):
        _arrange(out, layout, chain(order, others), counts)
    earlier = f"; {before:,} of them by an earlier run" if before else ""
    earlier += f", {len(others):,} of which are of photos that this run does not name" if others else ""
    click.echo(
        f"{counted(counts.total(), 'photo')}: {counts['sure']:,} sure, {counts['unsure']:,} not sure, "
        f"{counts['failed']:,} could not be read{earlier}",
        err=True,
    )
    if passed_over:
        kinds = (("files", "file", " without a picture's suffix"), ("links", "linked folder", ""))
        told = " and ".join(f"{counted(passed_over[k], noun)}{rest}" for k, noun, rest in kinds if passed_over[k])
        click.echo(f"Passed over: {told}", err=True)
    if counts["failed"]:
        sys.exit(1)


def _layout_of(out: Path | None) -> Layout:
    if out is None:
        return "table"
    for layout in LAYOUTS[1:]:
        if out.suffix.lower() == f".{layout}":
            return layout
    raise click.UsageError(f"{printable(str(out))}: name it .csv or .jsonl, or say which --format it shall have")


def _require_photos(photos: Sequence[str]) -> None:
    """Make sure that there is something to classify, before a file is replaced: a drive may be gone."""
    from clothing_classifier.bulk import find_photos
    from clothing_classifier.images import PhotoError, explain_missing

    reasons = []
    for path in photos:
        if path == "-":
            return
        first = next(find_photos([path]))
        if isinstance(first, PhotoError) and first.name == path:
            reasons.append(f"{path}: {first.reason}")
        elif isinstance(first, str) and not os.path.lexists(first):
            reasons.append(f"{path}: {explain_missing(path)}" if path else "'': is an empty name, and names no photo")
        else:
            return
    more = f"; and so on, for all {len(reasons)}" if len(reasons) > 1 else ""
    raise click.ClickException(printable(f"{reasons[0]}{more}"))


def _require_common(photos: Iterator[str | PhotoError], kept: Kept, out: Path) -> Iterator[str | PhotoError]:
    """Return the photos, once one of them is found to have a row that is kept."""
    passed = []
    for photo in photos:
        passed.append(photo)
        if _path(photo) in kept.first:
            return chain(passed, photos)
    named = f" ({next(iter(kept.first))} there, {_path(passed[0])} here)" if passed else ""
    raise click.ClickException(
        f"{printable(str(out))}: none of its rows is of a photo of this run{printable(named)}; name the photos as the "
        "run that was stopped did, or choose another --out"
    )


def _require_same_model(classifier: Classifier, kept: Kept, out: Path) -> None:
    """Make sure that the model says of a photo what a row that is kept says of it; one may be another photo by now."""
    from clothing_classifier.execution import TOLERANCE
    from clothing_classifier.images import PhotoError

    strange = []
    for path, (label, probability) in kept.samples.items():
        try:
            found = classifier.predict(path)
        except PhotoError:
            continue
        if found.label == label and abs(found.probability - probability) <= TOLERANCE:
            return
        strange.append(f"{path} was {label}, {probability:.3f}, and is {found.label}, {found.probability:.3f}")
    if strange:
        raise click.ClickException(
            printable(
                f"{out}: its rows are of another --model, or of photos that have changed ({strange[0]}); name the "
                "model of the run that was stopped, or choose another --out"
            )
        )


def _without_kept(photos: Iterable[str | PhotoError], kept: Kept, order: array[int]) -> Iterator[str | PhotoError]:
    """Yield the photos that have no row yet; one that is named twice gets two.

    ``order`` gets the number of each photo's row, where the rows that are kept stand first and the new ones follow.
    """
    used, row = Counter[str](), len(kept.rows)
    for photo in photos:
        path = _path(photo)
        place = kept.find(path, used[path])
        if place is None:
            order.append(row)
            row += 1
            yield photo
        else:
            order.append(place)
            used[path] += 1


def _path(photo: str | PhotoError) -> str:
    return photo if isinstance(photo, str) else photo.name


def _listed(photos: Iterable[str]) -> Iterator[str]:
    for path in photos:
        if path != "-":
            yield path
            continue
        for number, line in enumerate(_split(_standard_input())):
            if number == 0:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise click.UsageError("the list on standard input is in UTF-16; give it in UTF-8")
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield _decode(line)


def _standard_input() -> io.BufferedIOBase:
    """Open standard input again, for a thread: while one reads `sys.stdin`, Python cannot close that and end."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except io.UnsupportedOperation:  # it is no file
        return io.BytesIO(sys.stdin.buffer.read())


def _split(listed: io.BufferedIOBase) -> Iterator[bytes]:
    """Yield the paths of a list: a line each, or each with a zero byte after it, as ``find -print0`` writes.

    Each is there as soon as it is written.
    """
    rest, more = b"", b"more"
    while more and b"\n" not in rest and b"\0" not in rest:
        more = listed.read1(2**16)
        rest += more
    if rest.startswith(_PICTURES) or (rest.startswith(b"RIFF") and rest[8:12] == b"WEBP"):
        raise click.UsageError("standard input holds a photo, not a list of paths; save it to a file, and name that")
    first = rest.partition(b"\n")[0]
    lines = b"\0" not in first or first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    while True:
        *paths, rest = rest.split(b"\n" if lines else b"\0")
        yield from (path.rstrip(b"\r") if lines else path for path in paths)
        if not (more := listed.read1(2**16)):
            break
        rest += more
    yield rest.rstrip(b"\r") if lines else rest


def _decode(path: bytes) -> str:
    try:
        return os.fsdecode(path)
    except UnicodeDecodeError:  # on Windows, where names are not bytes: the row will say that there is no such file
        return path.decode("utf-8", "replace")


def _arrange(out: Path, layout: Layout, rows: Iterable[int], counts: Counter[str]) -> None:
    try:
        arrange(out, layout, rows)
    except OSError as error:
        raise _unwritable(out, error, counts, layout) from error


def _unwritable(out: Path, error: OSError, counts: Counter[str], layout: Layout) -> click.ClickException:
    advice = "repeat the command" if layout == "table" else "go on with --resume"
    return click.ClickException(
        f"{printable(str(out))}: cannot be written ({error.strerror}) beyond the rows of "
        f"{counted(counts.total(), 'photo')}; mend that, and {advice}"
    )


def _standard_output(layout: Layout) -> TextIO:
    if layout != "table" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors=ERRORS, newline="")
    return sys.stdout
