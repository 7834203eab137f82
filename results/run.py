"""Make the comparison's results again: every approach, random and sender folds.

    python results/run.py --data clothing-dataset [--weights hub|FOLDER] [--only APPROACH ...] [--yes]

It first loads the weights of each approach, measures a few steps of it and says what the whole will take on this
machine. Runs that were stopped go on where they were; finished ones cost seconds. In the end `results/*.json` and the
README's table are written anew, also when a run failed: then the others are in them, and the exit code is 1.

``--weights FOLDER`` takes the backbones from files there, called as timm calls the architecture
(``tf_efficientnet_b0.safetensors``). Approaches whose weights cannot be had are left out, and so are sender folds of
photos of which nobody knows the senders; both are said.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from collect import main as write_table

from clothing_classifier.dataset import DatasetError, read_dataset
from clothing_classifier.runs import Settings
from clothing_classifier.runs.photos import choose_statistics, start
from clothing_classifier.training.approaches import APPROACHES, Approach, build
from clothing_classifier.training.features import compute_features
from clothing_classifier.training.fit import choose_device, fit
from clothing_classifier.training.weights import WeightsError

PROTOCOLS = ("random", "sender")
FOLDS = 5
STEPS = 3
HEAD_SECONDS = 15
"""What solving for one fold's head takes, with all its inner folds and penalties, on two cores."""


def weights_of(approach: Approach, weights: str) -> str:
    """Return the ``--weights`` of an approach."""
    if approach.backbone is None:
        return "none"
    return weights if weights == "hub" else str(Path(weights) / f"{approach.backbone.partition('.')[0]}.safetensors")


def find_fault(approach: Approach, weights: str) -> str | None:
    """Return why an approach cannot start from its weights; ``None`` if it can."""
    if approach.backbone is None:
        return None
    statistics = choose_statistics(approach, np.empty((0, 1, 1, 3), np.uint8))
    try:
        start(approach, Settings(approach, Path(), Path(), weights=weights_of(approach, weights)), 17, statistics)
    except (WeightsError, ValueError) as error:
        return str(error)
    return None


def estimate(approach: Approach, photos: int, protocols: int, device: torch.device) -> float:
    """Return the seconds that so many protocols of an approach will take here, from a few measured steps."""
    recipe = approach.recipe
    count = STEPS * recipe.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, approach.height, approach.width, 3), np.uint8)
    labels = np.arange(count) % 17
    network = build(approach, 17, choose_statistics(approach, pixels))
    seconds = 0.0
    kept = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        if approach.backbone is not None:
            os.environ["XDG_CACHE_HOME"] = folder  # what noise looks like is not worth keeping
            started = time.monotonic()
            compute_features(network, pixels[: recipe.batch_size], device)
            seconds += (time.monotonic() - started) / recipe.batch_size * photos
            seconds += protocols * FOLDS * HEAD_SECONDS
        for small in (0.0, 1.0) if recipe.epochs else ():
            share = recipe.small if small else 1 - recipe.small
            if not share:
                continue
            _, curves = fit(
                network,
                (pixels, labels),
                (pixels[:0], labels[:0]),
                replace(recipe, epochs=1, members=1, small=small),
                fill=(0, 0, 0),
                seed=0,
                device=device,
                checkpoint=Path(folder) / f"{small}.pt",
            )
            each = curves[0]["seconds"] / count
            seconds += each * photos * (FOLDS - 1) * share * recipe.all_epochs * protocols
    if kept is None:
        os.environ.pop("XDG_CACHE_HOME", None)
    else:
        os.environ["XDG_CACHE_HOME"] = kept
    return seconds


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--weights", default="hub", show_default=True, help="hub, or a folder of safetensors files.")
@click.option("--weights-licence", help="What the records shall say of the licence of files.")
@click.option("--out", default=Path("runs"), show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--only", multiple=True, type=click.Choice(list(APPROACHES)), help="Some approaches only.")
@click.option("--device", default="auto", show_default=True)
@click.option("--yes", is_flag=True, help="Do not ask before it begins.")
def main(
    data: Path, weights: str, weights_licence: str | None, out: Path, only: tuple[str, ...], device: str, yes: bool
) -> None:
    """Make the comparison's results again: every approach, random and sender folds.

    It first loads the weights of each approach, measures a few steps of it, says what the whole will take on this
    machine, and asks.
    """
    try:
        manifest = read_dataset(data)
        where = choose_device(device)
    except (DatasetError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    protocols = PROTOCOLS if manifest.senders_known else PROTOCOLS[:1]
    if protocols != PROTOCOLS:
        click.echo(f"{'sender folds':<24}left out: {data} names no senders", err=True)
    able: list[Approach] = []
    faults: dict[str | None, str | None] = {}
    for entry in (entry for name, entry in APPROACHES.items() if not only or name in only):
        if entry.backbone not in faults:
            faults[entry.backbone] = find_fault(entry, weights)
        if fault := faults[entry.backbone]:
            click.echo(f"{entry.name:<24}left out: {fault}", err=True)
        else:
            able.append(entry)
    if not able:
        raise click.ClickException("no approach is left to run, for the reasons above")
    total = 0.0
    for entry in able:
        finished = all((out / f"{entry.name}-{protocol}" / "metrics.json").exists() for protocol in protocols)
        seconds = 0.0 if finished else estimate(entry, len(manifest.kept), len(protocols), where)
        total += seconds
        click.echo(f"{entry.name:<24}about {seconds / 60:5.0f} minutes{' (finished)' if finished else ''}", err=True)
    click.echo(f"{'all':<24}about {total / 60:5.0f} minutes on this machine, for {len(manifest.kept)} photos", err=True)
    if not yes:
        click.confirm("Begin?", abort=True, err=True)
    done: list[Path] = []
    failed: list[str] = []

    def run(folder: Path, *words: str) -> None:
        command = [sys.executable, "-m", "clothing_classifier", *words, "--out", str(folder)]
        if subprocess.run(command, check=False).returncode:
            failed.append(folder.name)
        else:
            done.append(folder)

    for entry in able:
        common = ["--data", str(data), "--weights", weights_of(entry, weights), "--device", device]
        if weights_licence and entry.backbone is not None:
            common += ["--weights-licence", weights_licence]
        for protocol in protocols:
            run(out / f"{entry.name}-{protocol}", "crossval", entry.name, "--folds", protocol, *common)
    write_table(done)
    if failed:
        raise click.ClickException(
            f"failed, for the reasons above: {', '.join(failed)}; the results of the others are written. Repeat the "
            "command to go on with these"
        )


if __name__ == "__main__":
    main()
