"""``clothing data``: fetch a dataset, and check what is in it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from clothing_classifier.cli import counted, measure_width, pad, printable

if TYPE_CHECKING:
    from clothing_classifier.dataset import Findings
    from clothing_classifier.dataset.editions import Listing

_SHOWN = 5
_DEFAULT_MANIFEST = Path("manifest.csv")


@click.group()
def command() -> None:
    """Fetch a dataset, and check what is in it."""


@command.command(short_help="Report what a dataset holds and what is dropped; write a manifest.")
@click.argument("data", type=click.Path(path_type=Path, readable=False), metavar="DIR|TABLE")
@click.option(
    "--photos",
    metavar="compressed|original|DIR",
    help="Which photos of Kaggle's edition; of a table, the folder that its paths start from.  [default: compressed, "
    "or those that are there; the table's folder, or the current one]",
)
@click.option(
    "--format",
    "layout",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="table is for people, json for programs.",
)
@click.option(
    "--manifest",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the manifest is written.  [default: manifest.csv in the current folder]",
)
def check(data: Path, photos: str | None, layout: str, manifest: Path | None) -> None:
    """Open every photo of a dataset; report what is there, and what is dropped and why.

    DIR holds Kaggle's edition (images.csv beside images_compressed/ and images_original/), GitHub's (images.csv beside
    images/), the ten-class subset's folders (train/, validation/ and test/, in each a folder per class), or a folder
    per class with classes of your own. A TABLE is a CSV file that names each photo and its label, as "clothing train"
    takes it.

    The manifest, a CSV file, has a row for every photo and for every row without a photo: path, label, sender, kids,
    part, sha256, width, height, dropped (the reason; empty for a photo that is used) and edition. A file of another
    kind that has the default name is not replaced.

    Exit codes: 0, the dataset can be used, without the photos that are dropped; 1, it cannot, and the message says
    why; 2, the usage is wrong or the manifest cannot be written; 130, stopped.
    """
    with _reporting() as progress, _explaining():
        from clothing_classifier.dataset import check_dataset

        if manifest is None:
            manifest = _DEFAULT_MANIFEST
            _require_own(manifest)
        if manifest.exists() and data.exists() and manifest.samefile(data):
            raise click.UsageError(f"{printable(str(data))}: is to be checked; name another file by --manifest")
        with _writing(manifest):  # before all photos are opened in vain
            TemporaryFile(dir=manifest.parent).close()
        findings = check_dataset(_list_data(data, photos), progress=progress.count)
        progress.end()
        print(json.dumps(findings.to_dict(), indent=2) if layout == "json" else _report(findings))
        with _writing(manifest):
            findings.manifest.write(manifest)
        click.echo(f"The manifest is {printable(str(manifest))}.", err=True)
        findings.require_classes()


@command.command(short_help="Download the dataset and check it.")
@click.argument("source", type=click.Choice(["kaggle", "github"]))
@click.argument("folder", type=click.Path(path_type=Path, readable=False), metavar="DIR")
@click.option("--url", help="Another address of GitHub's edition as a ZIP archive, over HTTPS.")
def fetch(source: str, folder: Path, url: str | None) -> None:
    """Download the dataset into DIR, and check it.

    github is the smaller edition: 5,756 photos with a short side of 400 pixels. kaggle has the same photos as the
    cameras took them, and smaller ones; it needs kagglehub, which is in the extra "train".

    DIR is whole or absent. What has arrived of a download that was stopped is in DIR.part, and the same command goes
    on from there.

    Exit codes: 0, the dataset is there and can be used; 1, it did not arrive or cannot be used, and the message says
    why; 2, the usage is wrong; 130, stopped.
    """
    if url is not None and source != "github":
        raise click.UsageError("--url goes with github only")
    with _reporting() as progress, _explaining():
        from clothing_classifier.dataset import check_dataset
        from clothing_classifier.dataset.fetch import GITHUB, compare_with_published, fetch_github, fetch_kaggle

        try:
            if source == "github":
                fetch_github(folder, progress, url=url or GITHUB)
            else:
                fetch_kaggle(folder, progress)
        except KeyboardInterrupt:
            progress.note("Stopped. What has arrived is kept; run the command again to go on.")
            raise
        findings = check_dataset(folder, progress=progress.count)
        progress.end()
        print(_report(findings))
        for difference in compare_with_published(findings):
            click.echo(f"Warning: {difference}", err=True)
        findings.require_classes()


def _list_data(data: Path, photos: str | None) -> Listing:
    """List the photos of a dataset's folder or of a table of labels; ``photos`` is what ``--photos`` says."""
    from clothing_classifier.dataset.editions import Size, list_photos
    from clothing_classifier.dataset.labels import read_labels

    if data.is_file():
        return read_labels(data, None if photos is None else Path(photos))
    if photos is None or photos in get_args(Size):
        return list_photos(data, cast("Size | None", photos))
    raise click.UsageError(
        f"--photos {printable(photos)}: of a dataset's folder, the photos are compressed or original"
    )


# ---------------------------------------------------------------------------------------------------------- report


def _report(findings: Findings) -> str:
    figures = findings.to_dict()
    photos, kept, classes, parts = (figures[key] for key in ("photos", "kept", "classes", "parts"))
    lines = [
        f"{'Folder':<10}{printable(figures['root'])}",
        f"{'Edition':<10}{printable(figures['edition'])}",
        f"{'Photos':<10}{photos:,}",
    ]
    if figures["rows"] is not None:
        lines.append(
            f"{'Rows':<10}{figures['rows']:,}; {counted(figures['photos_without_row'], 'photo has', 'photos have')} no "
            f"row, {counted(len(figures['rows_without_photo']), 'row has', 'rows have')} no photo"
        )
    lines.append(f"{'Used':<10}{counted(kept, 'photo', 'photos')} of {counted(len(classes), 'class', 'classes')}")
    lines.append(f"{'Digest':<10}{figures['digest']}")

    table = [
        (label, count, _percent(count / kept), *(of_label[label] for of_label in parts.values()))
        for label, count in sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    ]
    lines += _table(("class", "photos", "share", *parts), table)
    lines += _table(("dropped because of", "photos"), figures["dropped"].items())
    lines += _list("Unreadable", (f"{path}: {reason}" for path, reason in figures["unreadable"].items()))
    lines += _list("Rows without a photo", figures["rows_without_photo"])
    if figures["rows_repeated"]:
        lines += ["", f"{counted(figures['rows_repeated'], 'row repeats', 'rows repeat')} what another one says"]
    lines += _list("Groups of exact copies", (" = ".join(group) for group in figures["exact_copies"]))
    lines += _list("Class folders without photos", figures["empty_classes"])
    lines += _list("No photos by their names, and ignored", figures["ignored_files"])
    lines += _senders(figures["senders"])
    return "\n".join(lines)


def _senders(figures: Mapping[str, Any] | None) -> list[str]:
    if figures is None:
        return ["", "Nothing says who sent which photo."]
    largest = figures["largest"]
    title = f"{counted(figures['senders'], 'sender', 'senders')}, of whom the largest"
    lines = _table(
        (title, "photos", "share", "share so far"),
        ((s["sender"], s["photos"], _percent(s["share"]), _percent(s["share_so_far"])) for s in largest),
    )
    if figures["photos_without_sender"]:
        lines.append(f"{counted(figures['photos_without_sender'], 'photo has', 'photos have')} no sender")
    return lines + _list("Classes of one sender, which folds by sender cannot judge", figures["classes_of_one"])


def _table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    cells = [header, *((printable(str(first)), *(_cell(value) for value in others)) for first, *others in rows)]
    if len(cells) == 1:
        return []
    widths = [max(measure_width(row[column]) for row in cells) for column in range(len(header))]
    return ["", *(_line(row, widths) for row in cells)]


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join((pad(row[0], widths[0]), *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))))


def _cell(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _list(title: str, items: Iterable[str]) -> list[str]:
    items = list(items)
    if not items:
        return []
    lines = ["", f"{title}: {len(items):,}", *(f"  {printable(item)}" for item in items[:_SHOWN])]
    if len(items) > _SHOWN:
        lines.append(f"  and {len(items) - _SHOWN:,} more; --format json names them all")
    return lines


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _require_own(manifest: Path) -> None:
    """Make sure that a file of the default name is a manifest, and not something of the user's."""
    from clothing_classifier.dataset.manifest import COLUMNS

    if manifest.exists():
        with manifest.open("rb") as file:
            if not file.readline().startswith(",".join(COLUMNS).encode()):
                raise click.ClickException(f"{manifest}: is there and is no manifest; name another file by --manifest")


@contextmanager
def _writing(manifest: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(
            f"{printable(str(manifest))}: cannot be written ({error.strerror}); name another place by --manifest"
        ) from error


# -------------------------------------------------------------------------------------------------------- progress


@contextmanager
def _explaining() -> Iterator[None]:
    """End with code 1 and one line for a dataset that cannot be used or did not arrive."""
    from clothing_classifier.dataset import DatasetError

    try:
        yield
    except DatasetError as error:
        click.echo(f"Error: {printable(str(error))}", err=True)
        sys.exit(1)


class _Progress:
    """Progress on standard error: one line that is drawn again on a terminal, and only notes elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._drawn = 0.0
        self._open = False

    def count(self, done: int, total: int) -> None:
        self._draw(f"Opening the photos  {done:,} of {total:,}", done == total)

    def advance(self, doing: str, done: int, total: int | None) -> None:
        of = "" if total is None else f" of {total / 1e6:,.1f}"
        self._draw(f"{doing}  {done / 1e6:,.1f}{of} MB", done == total)

    def note(self, text: str) -> None:
        self.end()
        click.echo(printable(text), err=True)

    def end(self) -> None:
        if self._open:
            click.echo(err=True)
            self._open = False

    def _draw(self, text: str, last: bool) -> None:
        now = time.monotonic()
        if self._live and (last or now - self._drawn >= 0.1):
            self._drawn, self._open = now, True
            click.echo(f"\r\x1b[K{printable(text)}", err=True, nl=False)


@contextmanager
def _reporting() -> Iterator[_Progress]:
    progress = _Progress()
    try:
        yield progress
    finally:
        progress.end()
