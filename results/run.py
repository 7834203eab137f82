"""Make the comparison's results again: every approach, random and sender folds.

    python results/run.py --data clothing-dataset [--weights hub|FOLDER] [--only APPROACH ...] [--yes]

It first measures a few steps of each approach and says what the whole will take on this machine. Runs that were
stopped go on where they were; finished ones cost seconds. In the end `results/*.json` and the README's table are
written anew.

``--weights FOLDER`` takes the backbones from files there, called as timm calls the architecture
(``tf_efficientnet_b0.safetensors``); approaches whose file is not there are left out, and said.
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

from clothing_classifier.dataset import read_dataset
from clothing_classifier.runs.photos import choose_statistics
from clothing_classifier.training.approaches import APPROACHES, Approach, build
from clothing_classifier.training.features import compute_features
from clothing_classifier.training.fit import choose_device, fit

PROTOCOLS = ("random", "sender")
FOLDS = 5
STEPS = 3
HEAD_SECONDS = 15
"""What solving for one fold's head takes, with all its inner folds and penalties, on two cores."""


def weights_of(approach: Approach, weights: str) -> str | None:
    """Return the ``--weights`` of an approach; ``None`` if they are not there."""
    if approach.backbone is None:
        return "none"
    if weights == "hub":
        return weights
    file = Path(weights) / f"{approach.backbone.partition('.')[0]}.safetensors"
    return str(file) if file.is_file() else None


def estimate(approach: Approach, photos: int, device: torch.device) -> float:
    """Return the seconds that both protocols of an approach will take here, from a few measured steps."""
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
            seconds += len(PROTOCOLS) * FOLDS * HEAD_SECONDS
        for small in (0.0, 1.0) if recipe.epochs else ():
            share = recipe.small if small else 1 - recipe.small
            if not share:
                continue
            _, curves = fit(
                network,
                (pixels, labels),
                (pixels[:0], labels[:0]),
                replace(recipe, epochs=1, small=small),
                fill=(0, 0, 0),
                seed=0,
                device=device,
                checkpoint=Path(folder) / f"{small}.pt",
            )
            each = curves[0]["seconds"] / count
            seconds += each * photos * (FOLDS - 1) * share * recipe.epochs * len(PROTOCOLS)
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

    It first measures a few steps of each approach, says what the whole will take on this machine, and asks.
    """
    chosen = [entry for name, entry in APPROACHES.items() if not only or name in only]
    able = {entry.name: found for entry in chosen if (found := weights_of(entry, weights)) is not None}
    for entry in chosen:
        if entry.name not in able:
            click.echo(f"{entry.name:<24}left out: there are no weights of {entry.backbone} in {weights}", err=True)
    photos = len(read_dataset(data).kept)
    total = 0.0
    for name in able:
        finished = all((out / f"{name}-{protocol}" / "metrics.json").exists() for protocol in PROTOCOLS)
        seconds = 0.0 if finished else estimate(APPROACHES[name], photos, choose_device(device))
        total += seconds
        click.echo(f"{name:<24}about {seconds / 60:5.0f} minutes{' (finished)' if finished else ''}", err=True)
    click.echo(f"{'all':<24}about {total / 60:5.0f} minutes on this machine, for {photos} photos", err=True)
    if not yes:
        click.confirm("Begin?", abort=True, err=True)
    for name, source in able.items():
        for protocol in PROTOCOLS:
            folder = out / f"{name}-{protocol}"
            words = ["crossval", name, "--data", str(data), "--folds", protocol, "--out", str(folder)]
            words += ["--weights", source, "--device", device]
            if weights_licence and APPROACHES[name].backbone is not None:
                words += ["--weights-licence", weights_licence]
            subprocess.run([sys.executable, "-m", "clothing_classifier", *words], check=True)
    write_table(out / f"{name}-{protocol}" for name in able for protocol in PROTOCOLS)


if __name__ == "__main__":
    main()
