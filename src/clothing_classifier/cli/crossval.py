"""``clothing crossval``: one approach, every photo judged once by a network that did not learn from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clothing_classifier.cli import printable
from clothing_classifier.cli.train import (
    describe_left_out,
    list_approaches,
    require_table,
    require_torch,
    running,
    training_options,
)
from clothing_classifier.training.approaches import APPROACHES

if TYPE_CHECKING:
    from clothing_classifier.training.splits import Protocol

_HELP = """Cross-validate APPROACH: every photo is judged once, by a network that did not learn from it. Needs the
extra `train`.

\b
{approaches}

Repeat it for other approaches with the same data, folds and seed, and `clothing compare` sets the runs side by side. A
run that was stopped, however hard, goes on in the fold and epoch where it was, and ends with the same figures.

Exit codes: 0, all folds are measured; 2, they cannot be, and the message says why; 130, stopped.
"""


@click.command(help=_HELP.format(approaches=list_approaches()))
@click.argument("approach", metavar="APPROACH", type=click.Choice(list(APPROACHES)))
@training_options
@click.option(
    "--folds",
    "protocol",
    default="random",
    show_default=True,
    type=click.Choice(["random", "sender"]),
    help="random: stratified by class; sender: also no sender in two folds.",
)
@click.option("--count", default=5, show_default=True, type=click.IntRange(2), help="How many folds.")
def command(
    approach: str,
    data: Path,
    photos: Path | None,
    out: Path,
    protocol: Protocol,
    count: int,
    seed: int,
    weights: str,
    weights_licence: str | None,
    device: str,
    epochs: int | None,
    members: int | None,
    backbone: str | None,
) -> None:
    require_table(data, photos)
    require_torch()
    from clothing_classifier.dataset import read_manifest
    from clothing_classifier.runs import Settings, cross_validate

    chosen = APPROACHES[approach]
    with running(f" from the last whole epoch in {out}") as reporter:
        settings = Settings(
            approach=chosen.with_backbone(backbone) if backbone else chosen,
            data=data,
            out=out,
            split=protocol,
            seed=seed,
            weights=weights,
            weights_licence=weights_licence,
            device=device,
            epochs=epochs,
            members=members,
            folds=count,
            photos=photos,
        )
        metrics = cross_validate(settings, reporter)
    for line in describe_left_out(read_manifest(out / "manifest.csv")):
        click.echo(printable(line))
    for row in metrics["folds"]:
        click.echo(
            f"fold {row['fold'] + 1:<4}{row['photos']:>6} photos   weighted F1 {row['weighted_f1']:.3f}   "
            f"macro F1 {row['macro_f1']:.3f}   accuracy {row['accuracy']:.3f}"
        )
    (low, high), spread = metrics["intervals"]["weighted_f1"], metrics["std"]["weighted_f1"]
    click.echo(
        f"all      {metrics['photos']:>6} photos   weighted F1 {metrics['weighted_f1']:.3f} ({low:.3f} to {high:.3f}, "
        f"± {spread:.3f} between folds)   macro F1 {metrics['macro_f1']:.3f}   accuracy {metrics['accuracy']:.3f}"
    )
    click.echo(printable(f"  measured on: {metrics['protocol']}"))
