"""``clothing train``: photos → a measured model file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clothing_classifier.training.approaches import APPROACHES

if TYPE_CHECKING:
    from clothing_classifier.runs import SplitChoice
    from clothing_classifier.training.fit import Step

_HELP = """Train a classifier with APPROACH, and measure it on photos that it has not seen.

\b
{approaches}

A run that was stopped, however hard, goes on when its command is repeated, and ends with the same model. Its folder
holds all that made it: config.json, manifest.csv, split.csv, checkpoint.pt, curves.csv, metrics.json, predictions.csv
and model.onnx, which `clothing predict --model RUN/model.onnx` uses.

Exit codes: 0, the model is made and measured; 2, it cannot be, and the message says why; 130, stopped.
"""


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
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                help="The dataset's folder, in any edition, or a folder with one folder of photos per class.",
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
            click.option("--weights-licence", help="What the records shall say of the weights' licence."),
            click.option(
                "--device",
                default="auto",
                show_default=True,
                type=click.Choice(["auto", "cpu", "cuda", "mps"]),
                help="Where.",
            ),
            click.option("--epochs", type=click.IntRange(0), help="Instead of the recipe's; 0 freezes a backbone."),
        )
    ):
        command = option(command)
    return command


backbone_option = click.option(
    "--backbone", metavar="NAME", help="Another of timm's backbones in place of the approach's."
)


def require_torch() -> None:
    """Say how to install what training needs, where it is missing.

    Raises:
        ClickException: torch is not there.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise click.ClickException(
            'training needs more than prediction does: pip install "clothing-classifier[train]"'
        ) from error


@click.command(help=_HELP.format(approaches=list_approaches()))
@click.argument("approach", type=click.Choice(list(APPROACHES)))
@training_options
@click.option(
    "--split",
    type=click.Choice(["random", "sender", "given"]),
    help="random: stratified by class; sender: also no sender on two sides; given: the data's own train, validation "
    "and test folders. By default given where there are such folders, otherwise random.",
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
@backbone_option
def command(
    approach: str,
    data: Path,
    out: Path,
    split: SplitChoice | None,
    seed: int,
    weights: str,
    weights_licence: str | None,
    device: str,
    epochs: int | None,
    backbone: str | None,
    crossvals: tuple[Path, ...],
) -> None:
    if split and crossvals:
        raise click.UsageError("--crossval lets all photos teach: there is nothing to --split; leave one of them out")
    require_torch()
    from clothing_classifier.runs import Settings, train

    chosen = APPROACHES[approach]
    reporter = Terminal()
    try:
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
            crossvals=crossvals,
        )
        metrics = train(settings, reporter)
    except KeyboardInterrupt:
        reporter.end()
        click.echo(f"Stopped. Repeat the command to go on from the last whole epoch in {out}.", err=True)
        sys.exit(130)
    except ValueError as error:
        reporter.end()
        raise click.ClickException(str(error)) from error
    finally:
        reporter.end()
    for part, figures in metrics.items():
        low, high = figures["intervals"]["weighted_f1"]
        click.echo(
            f"{part:<13}{figures['photos']:>5} photos   weighted F1 {figures['weighted_f1']:.3f} "
            f"({low:.3f} to {high:.3f})   macro F1 {figures['macro_f1']:.3f}   accuracy {figures['accuracy']:.3f}"
        )
    click.echo(f"The model is {out / 'model.onnx'}.")


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
        self._started = time.monotonic()
        click.echo(name, err=True)

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
