"""How often the shipped model names what is no garment.

    python results/strangers.py --data clothing-dataset faces=DIR scenery=DIR ...

Of the dataset it takes the photos labelled `Other`, which have taught no model here; further groups are folders of
pictures. Surfaces, noise, gradients and patterns are drawn. Writes `results/strangers.json`: of each group, the share
that is named and not "not sure", beside the same share of garments of unknown senders, as the card knows it from folds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from clothing_classifier import Classifier
from clothing_classifier.bulk import find_photos, predict_photos
from clothing_classifier.dataset import read_dataset

HERE = Path(__file__).resolve().parent
DRAWN = 100
SIZE = (400, 300)


def draw() -> Iterator[npt.NDArray[np.uint8]]:
    """Draw pictures without a thing in them: noise, walls, gradients, blurred colours, chequers."""
    random = np.random.default_rng(0)
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    for number in range(DRAWN):
        first, second = random.integers(0, 256, (2, 3))
        kind = number % 5
        if kind == 0:
            pixels = random.integers(0, 256, (height, width, 3))
        elif kind == 1:
            pixels = first + random.normal(0, 3, (height, width, 3))
        else:
            if kind == 2:
                share = (x * random.random() + y * random.random()) / (width + height)
            elif kind == 3:
                share = (
                    np.sin(x / random.uniform(20, 90) + 6 * random.random()) * np.cos(y / random.uniform(20, 90)) / 2
                    + 0.5
                )
            else:
                side = int(random.integers(8, 60))
                share = (x // side + y // side) % 2
            pixels = first + (second - first) * share[..., None]
        yield np.clip(pixels, 0, 255).astype(np.uint8)


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", type=click.Path(exists=True, dir_okay=False), help="By default the one that ships.")
@click.option("--out", default=HERE / "strangers.json", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("groups", nargs=-1, metavar="[NAME=FOLDER]...")
def main(data: Path, model: str | None, out: Path, groups: tuple[str, ...]) -> None:
    """Measure how often the model names what is no garment."""
    classifier = Classifier.load(model)
    manifest = read_dataset(data)
    photos = {
        "dataset's Other": [str(manifest.root / photo.path) for photo in manifest.photos if photo.label == "Other"]
    }
    for group in groups:
        name, _, folder = group.partition("=")
        photos[name] = [path for path in find_photos([folder]) if isinstance(path, str)]
    measured: dict[str, dict[str, Any]] = {}
    for name, paths in photos.items():
        rows = [row.prediction for row in predict_photos(classifier, paths) if row.prediction is not None]
        measured[name] = measure([row.probability for row in rows], classifier.threshold)
    drawn = classifier.predict_batch(list(draw()))
    measured["drawn"] = measure([row.probability for row in drawn], classifier.threshold)
    facts = {
        "threshold": classifier.threshold,
        "garments": classifier.card.promise["share"],
        "strangers": measured,
        "model": {"name": classifier.card.name, "created": classifier.card.created, "commit": classifier.card.commit},
    }
    out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    click.echo(f"garments of unknown senders: {facts['garments']:.1%} named")
    for name, row in measured.items():
        click.echo(f"{name}: {row['named']:.1%} of {row['pictures']} named")


def measure(probabilities: list[float], threshold: float) -> dict[str, Any]:
    """Return the share of pictures that are named, and their mean confidence."""
    return {
        "pictures": len(probabilities),
        "named": round(float(np.mean(np.array(probabilities) >= threshold)), 4),
        "confidence": round(float(np.mean(probabilities)), 4),
    }


if __name__ == "__main__":
    main()
