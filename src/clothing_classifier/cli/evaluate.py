"""``clothing evaluate``: a model, and photos that somebody has labelled → how good it is on them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from clothing_classifier.cli import (
    computing_options,
    counted,
    make_limits,
    measure_width,
    model_option,
    pad,
    printable,
    threshold_option,
)
from clothing_classifier.cli.table import (
    describe_classes,
    describe_entry,
    hold,
    list_some,
    make_judged_writer,
    open_rows,
    spare_input,
)

if TYPE_CHECKING:
    from clothing_classifier.bulk import Row
    from clothing_classifier.card import ModelCard, ModelFile
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.dataset import Photo
    from clothing_classifier.dataset.editions import Listing
    from clothing_classifier.evaluation.labelled import Evaluation
    from clothing_classifier.execution import Choice

_NAMED: Final = 10
_FEW: Final = 3
_SCORES: Final = (("accuracy", "accuracy"), ("weighted_f1", "weighted F1"), ("macro_f1", "macro F1"))
_SHIPPED: Final = "shipped"
_MOST_LABELS: Final = 20


@click.command()
@click.argument("data", type=click.Path(path_type=Path, readable=False))
@model_option
@click.option(
    "--against",
    type=click.Path(readable=False),
    help="Another model file of the same classes, or `shipped`: is --model better on these photos, beyond chance?",
)
@click.option(
    "--photos",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the paths in a table start from.  [default: the table's folder; if nothing is there, the current one]",
)
@click.option(
    "--part",
    type=click.Choice(["train", "validation", "test"]),
    help="Only this part, where DATA comes in parts.  [default: all]",
)
@click.option(
    "--unseen",
    is_flag=True,
    help="Leave out the photos that the model learned from: files with the very same bytes.",
)
@threshold_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a row for each photo to this CSV file; an existing one is replaced.",
)
@click.option(
    "--format",
    "layout",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="text is for people; json, one object with all figures, for programs.",
)
@computing_options
def command(
    data: Path,
    model: str | None,
    against: str | None,
    folder: Path | None,
    part: str | None,
    unseen: bool,
    threshold: float | None,
    out: Path | None,
    layout: str,
    max_bytes: int | None,
    max_megapixels: float | None,
    threads: int | None,
    provider: Choice,
) -> None:
    """Measure a model on labelled photos of your own.

    DATA is a folder with one folder of photos per class; a dataset, as `clothing data check` takes it; or a CSV table
    with a column for the photo (such as path, file or image) and one for what it truly shows (truth, true_label,
    answer, label, class or category; the first of them that is there). So DATA may be the table that you download from
    the service's page after your corrections, or that of `clothing predict` after you corrected its column label or
    added a column truth; but what nobody corrected there is the model's own answer, and counts as right.

    Labels may be spelled like t-shirt or Tshirt. Photos with a label that is no class of the model (as Not sure,
    Other and Skip) are left out, and counted.

    The figures flatter on photos that the model learned from. It recognises their files while these are unchanged, and
    says how many there are; --unseen leaves them out. The model that ships learned from the Clothing dataset.

    --against measures a second model on the same photos, and says how much better the first one is, with an interval
    for chance. With --unseen, what either of them learned from is left out.

    --out has the columns path, label (yours), predicted, probability, sure, right and error. Where the label was
    wrong, correct it in a copy, and measure that: DATA may be such a file.

    Exit codes: 0, all photos are measured; 1, some could not be read, and the figures are of the others; 2, the usage
    is wrong, or DATA or the model cannot be used; 130, stopped.
    """
    if out is not None and out.suffix.lower() != ".csv":
        raise click.UsageError(f"{printable(str(out))}: name it .csv, for rows; the figures come by --format")
    if folder is not None and data.is_dir():
        raise click.UsageError("--photos says where the paths in a table start from, and DATA is a folder")

    from clothing_classifier.bulk import predict_photos
    from clothing_classifier.card import read_model
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.dataset.editions import TABLE, is_published
    from clothing_classifier.dataset.labels import read_labels
    from clothing_classifier.evaluation.labelled import Evaluation
    from clothing_classifier.machine import share_cores

    listing = read_labels(data, folder)
    if out is not None:
        spare_input(out, (str(data), str(listing.root / TABLE)))
    workers, together = share_cores(threads)
    files = [read_model(model)]
    if against is not None:
        files.append(read_model(None if against == _SHIPPED else against))
        _require_same_classes(*files)
    taught = [file.read_photos() for file in files]
    for file, marks in zip(files, taught, strict=True):
        if unseen and marks is None:
            raise click.ClickException(
                printable(f"{file.path}: does not tell which photos it learned from, so --unseen cannot leave them out")
            )
    classifier, *others = (
        Classifier(
            file,
            limits=make_limits(max_bytes, max_megapixels),
            threshold=threshold,
            threads=together,
            provider=provider,
        )
        for file in files
    )
    photos, named, left_out = _choose(data, listing, classifier.labels, part)

    evaluation = Evaluation(classifier.card, classifier.threshold)
    unreadable: list[dict[str, str]] = []
    measured: list[tuple[str, str, str | None]] = []
    known = [0] * len(files)
    seen = 0
    if unseen:
        found = [_find(str(listing.root / photo.path), taught) for photo in photos]
        known = [sum(of_model) for of_model in zip(*found, strict=True)]
        photos = [photo for photo, knows in zip(photos, found, strict=True) if not any(knows)]
        seen = len(found) - len(photos)
        if not photos:
            raise click.ClickException(printable(f"{data}: the model learned from all of these photos; take others"))
    with ExitStack() as stack:
        write = None
        if out is not None:
            stack.enter_context(hold(out))
            stream = stack.enter_context(open_rows(out, "w"))
            write = make_judged_writer(stream)
        paths = (str(listing.root / photo.path) for photo in photos)
        rows = stack.enter_context(closing(predict_photos(classifier, paths, threads=workers)))
        shown: Iterable[Row] = rows
        if sys.stderr.isatty():
            shown = stack.enter_context(click.progressbar(rows, len(photos), file=sys.stderr, show_pos=True))
        for photo, row in zip(photos, shown, strict=True):
            label = named[photo.label or ""]
            if row.prediction is None:
                unreadable.append({"path": row.path, "reason": row.error or ""})
            else:
                if not unseen:
                    known = [count + knows for count, knows in zip(known, _find(row.path, taught), strict=True)]
                evaluation.add(row.path, label, row.prediction, photo.sender)
                measured.append((row.path, label, photo.sender))
            if write is not None:
                try:
                    write(row, label)
                    stream.flush()
                except OSError as error:
                    with suppress(OSError):  # it would be raised again where the file is closed
                        stream.close()
                    raise click.ClickException(
                        f"{printable(str(out))}: cannot be written ({error.strerror}); make room, or choose another "
                        "--out"
                    ) from error

    learned_from = [None if marks is None else count for marks, count in zip(taught, known, strict=True)]
    beside = None
    if others and measured:
        beside = {
            "path": str(others[0].path),
            "name": others[0].card.name,
            **evaluation.compare(_measure(others[0], measured, workers)),
            "learned_from": learned_from[1],
        }
    report = {
        "data": {"path": str(data), "edition": listing.edition, "photos_in": str(listing.root), "part": part},
        "model": {"path": str(classifier.path), "name": classifier.card.name},
        **(evaluation.figures() if measured else {"photos": 0}),
        "left_out": left_out,
        "passed_over": sorted([*listing.ignored, *(f"{label}/" for label in listing.empty)]),
        "unreadable": unreadable,
        "unchecked_labels": listing.guessed,
        "learned_from": learned_from[0],
        "unseen": {"left_out": seen} if unseen else None,
        "same_dataset": is_published(listing.edition) and is_published(classifier.card.data.get("edition")),
        "against": beside,
    }
    if layout == "json":
        click.echo(json.dumps(report, indent=2))
    else:
        for line in _describe(report, classifier.card):
            click.echo(line)
    if unreadable:
        sys.exit(1)


def _choose(
    data: Path, listing: Listing, labels: Sequence[str], part: str | None
) -> tuple[list[Photo], dict[str, str], dict[str, dict[str, int]]]:
    """Return the photos to measure on, the model's class for each of their labels, and what is left out."""
    from clothing_classifier.dataset.manifest import NO_PHOTO
    from clothing_classifier.taxonomy import canonical_label, match_label

    photos: Sequence[Photo] = listing.photos
    if part is not None:
        parts = sorted({photo.part for photo in photos if photo.part})
        photos = [photo for photo in photos if photo.part == part]
        if not photos:
            there = f"; there are: {', '.join(parts)}" if parts else "; it comes in no parts"
            raise click.ClickException(printable(f"{data}: has no photos of the part {part}{there}"))
    given = dict.fromkeys(photo.label for photo in photos if photo.label)
    found = {label: match_label(label, labels) for label in given}
    named = {label: known for label, known in found.items() if known is not None}
    if not named:
        if not given:
            reasons = Counter(photo.reason for photo in photos)
            raise click.ClickException(printable(f"{data}: no photo has a label: {_tell(reasons)}"))
        raise click.ClickException(
            printable(
                f"{data}: none of its labels is a class of the model; its labels: {_some(list(given))}; "
                f"the model's classes: {_some(labels)}"
            )
        )
    others = Counter(canonical_label(p.label) or p.label for p in photos if p.label and p.label not in named)
    reasons = Counter(photo.reason for photo in photos if not photo.label)
    if listing.missing:
        reasons[NO_PHOTO] += len(listing.missing)
    left_out = {"labels": dict(others.most_common()), "reasons": dict(reasons.most_common())}
    return [photo for photo in photos if photo.label in named], named, left_out


def _require_same_classes(first: ModelFile, second: ModelFile) -> None:
    if {*first.card.labels} != {*second.card.labels}:
        alone = [
            f"{file.path} alone has: {_some(sorted({*file.card.labels} - {*other.card.labels})) or 'none'}"
            for file, other in ((first, second), (second, first))
        ]
        raise click.ClickException(printable(f"only models of the same classes can be compared; {'; '.join(alone)}"))


def _find(path: str, taught: Sequence[Set[str] | None]) -> list[bool]:
    """Say of each model's photos whether the file at ``path`` is one of them."""
    from clothing_classifier.card import mark
    from clothing_classifier.dataset.manifest import compute_sha256

    if not any(taught):
        return [False] * len(taught)
    try:
        with open(path, "rb") as file:
            found = mark(compute_sha256(file))
    except OSError:  # it was there when the model looked at it
        return [False] * len(taught)
    return [marks is not None and found in marks for marks in taught]


def _measure(classifier: Classifier, photos: Sequence[tuple[str, str, str | None]], workers: int) -> Evaluation:
    """Return what another model says of photos that were read before, given as path, label and sender."""
    from clothing_classifier.bulk import predict_photos
    from clothing_classifier.evaluation.labelled import Evaluation

    evaluation = Evaluation(classifier.card, classifier.threshold)
    with closing(predict_photos(classifier, (path for path, _, _ in photos), threads=workers)) as rows:
        for row, (path, label, sender) in zip(rows, photos, strict=True):
            if row.prediction is None:
                raise click.ClickException(printable(f"{path}: could be read before, and now not: {row.error}"))
            evaluation.add(path, label, row.prediction, sender)
    return evaluation


# ---------------------------------------------------------------------------------------------------------- report


def _describe(report: Mapping[str, Any], card: ModelCard) -> Iterator[str]:
    data, photos = report["data"], report["photos"]
    part = f", {data['part']} part" if data["part"] else ""
    yield from describe_entry("Model", f"{report['model']['name']}, {report['model']['path']}")
    yield from describe_entry("Photos", f"{counted(photos, 'photo')} in {data['photos_in']} ({data['edition']}{part})")
    for title, text in _remarks(report):
        yield from describe_entry(title, text)
    for failed in report["unreadable"][:_NAMED]:
        yield printable(f"  {failed['path']}: {failed['reason']}")
    if len(report["unreadable"]) > _NAMED:
        yield f"  and {len(report['unreadable']) - _NAMED:,} more; --out or --format json names them all"
    if not photos:
        yield "There is nothing to measure on."
        return
    yield ""
    yield from describe_classes(report)
    absent = [label for label, row in report["per_class"].items() if not row["photos"]]
    if absent:
        yield from _prose(f"No photos of: {_some(absent)}")
    yield ""
    for name, title in _SCORES:
        low, high = report["intervals"][name]
        classes = counted(len(card.labels) - len(absent), "class", "classes")
        over = f" over the {classes} with photos here" if absent else ""
        mean = f", the plain mean{over}" if name == "macro_f1" else ""
        yield f"{title:<27}{report[name]:.3f} ({low:.3f} to {high:.3f}){mean}"
    yield f"{'expected calibration error':<27}{report['expected_calibration_error']:.3f}"
    units = counted(report["senders"], "sender") if report["intervals_over"] == "senders" else "photos"
    yield f"In parentheses: 95% intervals, bootstrap over {units}."
    if report["accuracy"] == 1:
        yield "Where no answer is wrong, these intervals have no width, and say nothing of chance."
    yield ""
    for text in _promise(report):
        yield from _prose(text)
    if report["against"]:
        yield ""
        yield from _beside(report)
    if report["mistakes"]:
        yield ""
        yield "The most confident mistakes: the model is wrong, or the label is."
        width = max(map(measure_width, (*card.labels, "predicted")))
        yield f"{'label':<{width}}  {'predicted':<{width}}  probability  photo"
        for mistake in report["mistakes"]:
            named = f"{pad(mistake['label'], width)}  {pad(mistake['predicted'], width)}"
            yield f"{named}  {mistake['probability']:>11.1%}  {printable(mistake['path'])}"


def _beside(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield another model's figures beside those of this one, and whether chance explains the difference."""
    other = report["against"]
    yield from _prose(f"Beside it, on the same photos: {other['name']}, {other['path']}")
    if (known := other["learned_from"]) and not report["unseen"]:
        yield from _prose(f"It learned from {known:,} of them, which flatter it; --unseen leaves them out.")
    yield f"{'':<27}{'model':>7}{'other':>7}  difference"
    for name, title in _SCORES:
        found = other["differences"][name]
        low, high = found["interval"]
        told = f"{found['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
        yield f"{title:<27}{report[name]:>7.3f}{other[name]:>7.3f}  {told}"
    name = "expected_calibration_error"
    yield f"{'expected calibration error':<27}{report[name]:>7.3f}{other[name]:>7.3f}"
    for name, title in (("share", "names"), ("accuracy", "of these, right")):
        both = (one["sure"][name] for one in (report, other))
        cells = "".join(f"{'' if value is None else f'{value:.1%}':>7}" for value in both)
        yield f"{title:<27}{cells}".rstrip()
    low, high = other["differences"]["weighted_f1"]["interval"]
    if low > 0 or high < 0:
        which = "better" if low > 0 else "worse"
        yield from _prose(f"By weighted F1 the model is {which} than the other, by more than chance.")
    else:
        yield from _prose("Which of them is better by weighted F1, these photos do not show beyond chance.")


def _remarks(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what to know of the photos before any figure, with a title each."""
    left_out, guessed = report["left_out"], report["unchecked_labels"]
    if left_out["labels"]:
        yield "Left out", f"labels that are no class of the model: {_tell(left_out['labels'])}"
    if left_out["reasons"]:
        yield "Left out", _tell(left_out["reasons"])
    if passed := report["passed_over"]:
        names = ", ".join(passed[:_FEW]) + (", …" if len(passed) > _FEW else "")
        yield "Passed over", f"by their names no photos of a class ({len(passed):,}): {names}"
    if guessed:
        yield (
            "Caution",
            f"{counted(guessed, 'label')} of this table may be a model's own, which nobody corrected, and count as "
            "right: the figures are worth as much as somebody has looked at them",
        )
        if unnamed := left_out["labels"].get("Not sure"):
            yield (
                "Caution",
                f"nobody named {counted(unnamed, 'photo')} that it was not sure of: the hardest are missing",
            )
    if report["unseen"]:
        whose = "the model" if report["against"] is None else "one of the models"
        yield "Left out", f"photos that {whose} learned from ({report['unseen']['left_out']:,})"
    elif known := report["learned_from"]:
        yield (
            "Caution",
            f"the model learned from {known:,} of these photos, which flatter it; --unseen leaves them out",
        )
    if report["same_dataset"] and not report["learned_from"]:
        yield "Caution", "the model learned from the Clothing dataset; if these photos are of it, the figures flatter"
    if report["unreadable"]:
        told = counted(len(report["unreadable"]), "photo")
        yield "Unreadable", f"{told}; all figures are of the others" if report["photos"] else told


def _promise(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the model is sure of and how often rightly, what its card promises of that, and whether it holds."""
    sure, promise, keeping = report["sure"], report["promise"], report["keeping"]
    told = f"Sure at a probability of {report['threshold']:.4f} or more, it names {sure['share']:.1%} of these photos"
    if sure["photos"]:
        low, high = sure["interval"]
        told += (
            f", {sure['photos']:,} of {report['photos']:,}. Of these {sure['right']:,} are right: "
            f"{sure['accuracy']:.1%} (95% interval: {low:.1%} to {high:.1%})"
        )
    yield f"{told}."
    if promise is None:
        yield "Its card promises nothing."
        return
    aim = f"{promise['accuracy']:.1%}".replace(".0%", "%")
    if promise["made"]:
        share, right = promise["share"], promise["measured_accuracy"]
        known = "" if share is None else f" Where that was measured, it named {share:.1%}"
        known += "." if known and right is None else f" and was right in {right:.1%} of these." if known else ""
        yield f"Its card promises that {aim} of what it names is right.{known}"
        yield _verdict(report, aim)
    else:
        yield f"Its card does not promise that {aim} are right: the photos that it was measured on did not show it."
    if keeping is not None and keeping["threshold"] is None:
        yield f"No threshold makes {aim} of what it names right on these photos."
    elif keeping is not None:
        yield (
            f"With --threshold {keeping['threshold']:.4f} it would name {keeping['share']:.1%} of them and be right in "
            f"{keeping['accuracy']:.1%} of these. That threshold is chosen on the very photos that this is said of: on "
            "others expect a little less, and measure it there."
        )


def _verdict(report: Mapping[str, Any], aim: str) -> str:
    sure, promise = report["sure"], report["promise"]
    if report["threshold"] != promise["threshold"]:
        return f"That is of its own threshold, {promise['threshold']:.4f}; nothing is promised at another one."
    if not sure["photos"]:
        return "It names none of these photos, so they say nothing of that."
    if promise["verdict"] == "kept":
        return "The promise holds on these photos, by more than chance."
    if promise["verdict"] == "broken":
        return (
            "The promise does not hold on these photos: fewer are right, by more than chance. Unless it is the labels "
            "that are wrong, do not rely on its being sure here."
        )
    if sure["accuracy"] >= promise["accuracy"]:
        return f"The promise holds on these photos, but they are too few to show {aim} beyond chance."
    return "That is fewer than promised, but within chance: these photos do not show that the promise is broken."


def _prose(text: str) -> Iterator[str]:
    return describe_entry("", text, 0)


def _tell(counts: Mapping[str, int]) -> str:
    return _some([f"{name} ({count:,})" for name, count in counts.items()])


def _some(names: Sequence[str]) -> str:
    return list_some(names, _MOST_LABELS)
