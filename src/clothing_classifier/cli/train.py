"""``clothing train``: photos → a measured model file."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from clothing_classifier.cli import printable
from clothing_classifier.cli.table import describe_classes, list_some
from clothing_classifier.training.approaches import APPROACHES

if TYPE_CHECKING:
    from clothing_classifier.card import ModelCard, ModelFile
    from clothing_classifier.dataset import Manifest
    from clothing_classifier.runs import OwnSettings, SplitChoice
    from clothing_classifier.training.fit import Step

_HELP = """Train a classifier, and measure it on photos that it has not seen.

Without APPROACH: a model of your own classes, in minutes and without a GPU. Give each class a folder of photos, 30 or
more of each, and the folder that these lie in as --data; or a table of labels, as `clothing evaluate` takes it. Labels
that differ only in capitals or spaces are one class; "not sure" is no class. A model that is there already (the one
that ships, or --base) looks at each photo once, and a new last layer is computed from what it sees. What it saw is kept
in the user's cache, so repeating the command is quick. Needs the extra `own`, and no torch.

With APPROACH: a network is trained, of the same data. Needs the extra `train`.

\b
{approaches}

A run that was stopped, however hard, goes on when its command is repeated, and ends with the same model. Its folder
holds all that made it: config.json, manifest.csv, metrics.json, predictions.csv, with APPROACH also split.csv,
checkpoint.pt and curves.csv, and model.onnx, which `clothing predict --model RUN/model.onnx` uses.

Exit codes: 0, the model is made and measured; 2, it cannot be, and the message says why; 130, stopped.
"""

_REFUSED: Final = {
    "weights": "the base model brings its features with it, and --base chooses it",
    "weights_licence": "the base model's card says it",
    "device": "the base model runs on the processor",
    "epochs": "the last layer is solved for, not trained in epochs",
    "members": "the last layer is solved for, not trained",
    "crossvals": "the new last layer is cross-validated anyway",
    "backbone": "the base model brings it, and --base chooses that",
}
"""Why an option means nothing without an approach."""

_NAMED: Final = 10
_WEAK: Final = 0.9
_WORST: Final = 3


def list_approaches() -> str:
    """Return the approaches with what each is, a line each, for help texts."""
    return "\n".join(f"{name:<24}{entry.summary}" for name, entry in APPROACHES.items())


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all commands that train have in common."""
    for option in reversed(
        (
            click.option(
                "--data",
                required=True,
                type=click.Path(exists=True, path_type=Path),
                help="The dataset's folder, in any edition, a folder with one folder of photos per class, or a table "
                "of labels, as `clothing evaluate` takes it.",
            ),
            click.option(
                "--photos",
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                help="Where the paths in a table start from.  [default: the table's folder; if nothing is there, the "
                "current one]",
            ),
            click.option(
                "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The run's folder."
            ),
            click.option(
                "--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Same seed, same run."
            ),
            click.option(
                "--weights",
                default="hub",
                show_default=True,
                metavar="hub[@COMMIT]|none|FILE",
                help="Where a pretrained backbone comes from: timm's repositories on the Hugging Face hub (kept in its "
                "cache), nowhere, or a safetensors file.",
            ),
            click.option("--weights-licence", help="What the records are to say about the weights' licence."),
            click.option(
                "--device",
                default="auto",
                show_default=True,
                type=click.Choice(["auto", "cpu", "cuda", "mps"]),
                help="What trains; auto takes a GPU where there is one.",
            ),
            click.option("--epochs", type=click.IntRange(0), help="Instead of the recipe's; 0 freezes a backbone."),
            click.option(
                "--members",
                type=click.IntRange(1),
                help="Trainings whose weights' mean is the model, instead of the recipe's number; 1 is the quickest.",
            ),
            click.option("--backbone", metavar="NAME", help="Another of timm's backbones in place of the approach's."),
        )
    ):
        command = option(command)
    return command


@contextmanager
def running(on: str) -> Iterator[Terminal]:
    """Give a run its reporter, and say how to go on where it is stopped.

    Args:
        on: what a repeated command goes on from, as the sentence ends.

    Raises:
        ClickException: the run cannot be as it is asked for.
    """
    reporter = Terminal()
    try:
        yield reporter
    except KeyboardInterrupt:
        reporter.end()
        click.echo(f"Stopped. Repeat the command to go on{on}.", err=True)
        sys.exit(130)
    except ValueError as error:
        raise click.ClickException(printable(str(error))) from error
    finally:
        reporter.end()


def require_torch() -> None:
    """Say how to install what training needs, where it is missing.

    Raises:
        ClickException: torch is not there, or what a trained network is exported with.
    """
    try:
        import torch  # noqa: F401

        if find_spec("onnxscript") is None:  # which takes a second to import, and is needed at the end
            raise ModuleNotFoundError("onnxscript")
    except ImportError as error:
        raise click.ClickException(
            'training needs more than prediction does: pip install "clothing-classifier[train]"'
        ) from error


def _require_own() -> None:
    """Say how to install what a model of one's own classes needs, where it is missing.

    Raises:
        ClickException: onnx, SciPy or scikit-learn is not there.
    """
    try:
        import onnx  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise click.ClickException(
            'your own classes need more than prediction does: pip install "clothing-classifier[own]"'
        ) from error


@click.command(help=_HELP.format(approaches=list_approaches()))
@click.argument("approach", required=False, metavar="[APPROACH]", type=click.Choice(list(APPROACHES)))
@training_options
@click.option(
    "--split",
    type=click.Choice(["random", "sender", "given"]),
    help="random: stratified by class; sender: also no sender on two sides; given: the data's own train, validation "
    "and test parts. By default given where there are such parts, otherwise random; for your own classes sender "
    "where senders are known. Your own classes are judged in five folds, everything else on one part of the photos.",
)
@click.option(
    "--base",
    metavar="MODEL",
    type=click.Path(path_type=Path),
    help="Without APPROACH: the model file to build on, instead of the one that ships.",
)
@click.option(
    "--crossval",
    "crossvals",
    multiple=True,
    metavar="RUN",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A finished `clothing crossval` of the same approach: all photos teach, and calibration, threshold and "
    "figures come from its folds. Once for each protocol.",
)
@click.pass_context
def command(
    context: click.Context,
    approach: str | None,
    data: Path,
    out: Path,
    split: SplitChoice | None,
    seed: int,
    weights: str,
    weights_licence: str | None,
    device: str,
    epochs: int | None,
    members: int | None,
    photos: Path | None,
    base: Path | None,
    backbone: str | None,
    crossvals: tuple[Path, ...],
) -> None:
    require_table(data, photos)
    if approach is None:
        refuse_options(context)
        _require_own()
        from clothing_classifier.runs import OwnSettings

        _train_own(OwnSettings(data=data, out=out, photos=photos, base=base, split=split, seed=seed))
        return
    if base is not None:
        raise click.UsageError(
            "--base is for a new last layer, without APPROACH; an approach starts from --weights.", context
        )
    if split and crossvals:
        raise click.UsageError("--crossval lets all photos teach: there is nothing to --split; leave one of them out")
    require_torch()
    from clothing_classifier.card import read_model
    from clothing_classifier.dataset import read_manifest
    from clothing_classifier.runs import Settings, train

    chosen = APPROACHES[approach]
    with running(f" from the last whole epoch in {out}") as reporter:
        settings = Settings(
            approach=chosen.with_backbone(backbone) if backbone else chosen,
            data=data,
            out=out,
            split=split,
            seed=seed,
            weights=weights,
            weights_licence=weights_licence,
            device=device,
            epochs=epochs,
            members=members,
            crossvals=crossvals,
            photos=photos,
        )
        metrics = train(settings, reporter)
    for line in describe_left_out(read_manifest(out / "manifest.csv")):
        click.echo(printable(line))
    for part, figures in metrics.items():
        low, high = figures["intervals"]["weighted_f1"]
        click.echo(
            f"{part:<13}{figures['photos']:>5} photos   weighted F1 {figures['weighted_f1']:.3f} "
            f"({low:.3f} to {high:.3f})   macro F1 {figures['macro_f1']:.3f}   accuracy {figures['accuracy']:.3f}"
        )
        absent = [label for label, row in figures["per_class"].items() if not row["photos"]]
        if absent:
            click.echo(printable(f"  no photo to judge by: {', '.join(absent)}"))
    click.echo(_describe_promise(read_model(out / "model.onnx").card, figures["photos"], "photos"))
    click.echo(f"The model is {out / 'model.onnx'}.")


def require_table(data: Path, photos: Path | None) -> None:
    """Refuse ``--photos`` where there is no table whose paths could start there.

    Raises:
        UsageError: the data are a folder.
    """
    if photos is not None and data.is_dir():
        raise click.UsageError("--photos says where the paths in a table start from, and --data is a folder")


def refuse_options(context: click.Context) -> None:
    """Refuse the options that mean nothing where nothing but a head is learned.

    Raises:
        UsageError: one of them was given; the message names it and the reason.
    """
    for name in context.params.keys() - {"approach", "data", "out", "split", "seed", "photos", "base"}:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            reason = _REFUSED.get(name, "only an approach can do that")
            option = next(parameter.opts[0] for parameter in context.command.params if parameter.name == name)
            raise click.UsageError(f"{option} needs an APPROACH: {reason}.", context)


def _train_own(settings: OwnSettings) -> None:
    from clothing_classifier.card import read_model
    from clothing_classifier.dataset import read_manifest
    from clothing_classifier.runs import train_own
    from clothing_classifier.runs.folder import read_table

    with running("; what the photos look like is kept") as reporter:
        metrics = train_own(settings, reporter)
    manifest = read_manifest(settings.out / "manifest.csv")
    judged = read_table(settings.out / "predictions.csv")
    for line in describe_own(read_model(settings.out / "model.onnx"), metrics, manifest, judged):
        click.echo(printable(line))


def _describe_promise(card: ModelCard, photos: int, add: str) -> str:
    """Return what the model's being sure is worth, in words.

    Args:
        card: the model's.
        photos: how many judged it.
        add: what to add where these cannot show that the promise is kept.
    """
    promise = card.promise
    share, right = promise["share"], promise["measured_accuracy"]
    if promise["kept"]:
        low, high = promise["interval"]
        return (
            f"It names {share:.0%} of such photos and is right in {right:.1%} of these (95% interval: {low:.1%} to "
            f"{high:.1%}; promised: {promise['accuracy']:.0%}); below a probability of {card.threshold:.2f} it says "
            "not sure."
        )
    return (
        f"These {photos} photos cannot show that {promise['accuracy']:.0%} of its answers are right (measured: "
        f"{right:.1%}), so do not rely on its being sure. Add {add}, and repeat the command with another --out."
    )


def describe_own(
    model: ModelFile,
    metrics: Mapping[str, Any],
    manifest: Manifest,
    judged: Sequence[Mapping[str, str]],
) -> Iterator[str]:
    """Yield what a person who made a model of their own classes should know, a line each.

    Args:
        model: the model file.
        metrics: the content of the run's ``metrics.json``.
        manifest: of its photos.
        judged: the rows of the run's ``predictions.csv``.
    """
    card, figures = model.card, list(metrics.values())[-1]
    yield from describe_left_out(manifest)
    if passed := card.data.get("passed_over"):
        yield f"Passed over, as by their names they are no photos: {passed}; `clothing data check` has them."
    if guessed := card.data.get("unchecked_labels"):
        yield f"{guessed} labels of the table may be a model's own, uncorrected; it has learned from them as if right."
    counts = card.data["classes"]
    yield from describe_classes(figures, counts)
    for part, row in metrics.items():
        low, high = row["intervals"]["weighted_f1"]
        yield (
            f"{part:<10}{row['photos']:>6} photos   weighted F1 {row['weighted_f1']:.3f} ({low:.3f} to {high:.3f})   "
            f"macro F1 {row['macro_f1']:.3f}   accuracy {row['accuracy']:.3f}"
        )
        yield f"  measured on: {row['protocol']}"
        if row["accuracy"] == 1:
            yield "  Where no answer is wrong, this interval has no width, and says nothing of chance."
    if card.data["near_copies"]:
        yield f"{card.data['near_copies']} photos have near copies among the others; these teach little that is new."
    yield from _describe_contradictions(judged)
    for label in card.data["all_alike"]:
        yield f"The photos of {label} look all the same, so its figures say nothing; add photos that differ."
    for label in card.data["one_sender"]:
        yield f"The photos of {label} are all of one sender, so its figures flatter; add photos of other senders."
    if taught := card.data.get("taught_test_photos"):
        named = list_some([row["path"] for row in judged if row.get("taught") == "true"], _NAMED)
        yield f"{taught} test photos are near copies of photos that taught, so the figures flatter; take out: {named}."
    if known := card.data.get("known_senders_test_photos"):
        yield f"{known} test photos are by senders whose photos taught, so the figures flatter."
    absent = [label for label in card.labels if not figures["per_class"][label]["photos"]]
    if absent:
        yield f"No photo to judge by: {', '.join(absent)}. Nothing is known of {'it' if len(absent) == 1 else 'these'}."
    weakest = sorted(
        {*card.labels} - {*absent}, key=lambda label: (figures["per_class"][label]["f1"], counts[label], label)
    )
    weak = [label for label in weakest if figures["per_class"][label]["f1"] < _WEAK][:_WORST]
    if weak:
        named = ", ".join(f"{label} (F1 {figures['per_class'][label]['f1']:.2f})" for label in weak)
        yield f"Weakest: {named}. More photos of {'it' if len(weak) == 1 else 'these'} help most."
    rare = sorted(card.labels, key=lambda label: (counts[label], label))[:_WORST]
    needed = ", ".join(f"{label} (has {counts[label]})" for label in weak or rare)
    judges = list(metrics)[-1]
    add = f"photos of {needed}" if judges == "folds" else f"photos to the {judges} part, above all of {needed}"
    yield _describe_promise(card, figures["photos"], add)
    path = str(model.path)
    quoted = subprocess.list2cmdline([path]) if os.name == "nt" else shlex.quote(path)
    yield f"The model is {path}; use it with: clothing predict --model {quoted} PHOTOS"


def describe_left_out(manifest: Manifest) -> Iterator[str]:
    """Yield which photos could not be read, and how many were not used for which reason, a line each."""
    from clothing_classifier.dataset.manifest import NO_PHOTO

    for photo in [photo for photo in manifest.photos if photo.reason == "unreadable"][:_NAMED]:
        yield f"Left out: {photo.path} ({photo.dropped})"
    kinds = Counter(photo.reason for photo in manifest.photos if photo.dropped)
    if manifest.missing:
        kinds[NO_PHOTO] += len(manifest.missing)
    if kinds:
        told = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
        yield f"Left out in all: {told}; manifest.csv names each photo and the reason."


def _describe_contradictions(judged: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield the photos that look the same and have different labels."""
    groups: dict[str, list[Mapping[str, str]]] = {}
    for row in judged:
        groups.setdefault(row["group"], []).append(row)
    torn = [rows for rows in groups.values() if len({row["label"] for row in rows}) > 1]
    for rows in torn[:_NAMED]:
        named = list_some([f"{row['path']} ({row['label']})" for row in rows], _NAMED)
        yield f"These look the same, and have different labels: {named}."
    if len(torn) > _NAMED:
        yield f"So do those of {len(torn) - _NAMED} more groups; predictions.csv has the group of each photo."


class Terminal:
    """Progress on standard error: a line that is drawn again on a terminal, a line a stage or an epoch elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._drawn = 0.0
        self._started = time.monotonic()
        self._first: int | None = None
        self._open = False

    def stage(self, name: str) -> None:
        """Say which stage begins."""
        self.end()
        self._started, self._first = time.monotonic(), None
        click.echo(name, err=True)

    def note(self, text: str) -> None:
        """Say something that a person should know."""
        self.end()
        click.echo(printable(text), err=True)

    def progress(self, done: int, total: int) -> None:
        """Say how far the stage is, in photos."""
        self._draw(done, total, 0, f"{done}/{total} photos")

    def step(self, step: Step, epochs: int) -> None:
        """Say how far the training is."""
        done, total = step.epoch * step.steps_per_epoch + step.step, epochs * step.steps_per_epoch
        if self._first is None:  # a run that goes on has done earlier epochs in another process
            self._first, self._started = done - 1, time.monotonic()
        text = f"epoch {step.epoch + 1}/{epochs}, loss {step.loss:.3f}"
        self._draw(done, total, self._first, text)
        if not self._live and step.step == step.steps_per_epoch:
            click.echo(f"{text}, {self._left(done, total, self._first)}", err=True)

    def end(self) -> None:
        """Leave the line that is drawn again, if one is open."""
        if self._open:
            click.echo(err=True)
            self._open = False

    def _left(self, done: int, total: int, first: int) -> str:
        seconds = round((time.monotonic() - self._started) / max(1, done - first) * (total - done))
        hours, rest = divmod(seconds, 3600)
        return f"{hours}:{rest // 60:02}:{rest % 60:02} left" if hours else f"{rest // 60}:{rest % 60:02} left"

    def _draw(self, done: int, total: int, first: int, text: str) -> None:
        now = time.monotonic()
        if not self._live or (now - self._drawn < 0.1 and done < total):
            return
        self._drawn, self._open = now, True
        filled = 30 * done // max(1, total)
        bar = "█" * filled + "░" * (30 - filled)
        click.echo(f"\r\x1b[K{bar} {text}, {self._left(done, total, first)}", err=True, nl=False)
