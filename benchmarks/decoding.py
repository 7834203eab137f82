"""What decoding JPEGs at a smaller scale saves, and what it does to the answers.

    python benchmarks/decoding.py DATA --out decoding.json

DATA is labelled photos, as ``clothing evaluate`` takes them. The model classifies each of them twice: decoded at the
smallest scale that leaves enough pixels, as ``clothing predict`` does, and decoded whole. Same model, same photos, so
all that differs is the decoding. Photos that the model learned from flatter both ways alike. Small photos, and those
that are no JPEGs, are decoded whole in both: ``--grow 12`` makes of each one a JPEG as phones take them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from photos import grow

from clothing_classifier.card import ModelError
from clothing_classifier.classifier import BATCH, Classifier
from clothing_classifier.dataset import DatasetError
from clothing_classifier.dataset.labels import read_labels
from clothing_classifier.evaluation.metrics import confusion, score
from clothing_classifier.images import PhotoError, open_picture
from clothing_classifier.machine import available_cores
from clothing_classifier.resizing import resize
from clothing_classifier.taxonomy import match_label


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder per class, an edition of the dataset, or a table of labels")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="where the paths in a table start from")
    parser.add_argument("--part", choices=("train", "validation", "test"), help="only this part of the data")
    parser.add_argument("--model", type=Path, help="a model file; by default the model that ships")
    parser.add_argument("--grow", type=float, metavar="MEGAPIXELS", help="make photos of this size of them first")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    if options.grow is not None and not 0 < options.grow <= 100:
        parser.error("--grow: must be above 0, and 100 megapixels at most")
    try:
        listing = read_labels(options.data, options.photos)
        classifier = Classifier.load(options.model)
    except (DatasetError, ModelError) as error:
        sys.exit(str(error))
    photos = [
        (listing.root / photo.path, classifier.labels.index(label))
        for photo in listing.photos
        if options.part in (None, photo.part)
        and photo.label
        and (label := match_label(photo.label, classifier.labels)) is not None
    ]
    if not photos:
        parser.error(f"{options.data}: has no photo with a class of the model's{in_part(options.part)}")
    result = measure(classifier, photos, options.grow)
    size = "as they are" if options.grow is None else f"grown to {options.grow:g} megapixels"
    result = {
        "machine": describe(("clothing-classifier", "pillow", "onnxruntime")),
        "model": classifier.card.name,
        "commit": classifier.card.commit,
        "protocol": f"the {result['photos']} photos{in_part(options.part)}, {size}",
    } | result
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def in_part(part: str | None) -> str:
    """Return the part in words, if one is chosen."""
    return "" if part is None else f" of the {part} part"


def measure(classifier: Classifier, photos: list[tuple[Path, int]], megapixels: float | None) -> dict[str, Any]:
    """Classify photos, given with the numbers of their classes, in both ways; return what that took and changed."""

    def prepare(number: int) -> dict[str, tuple[Any, float]] | None:
        found = {}
        try:
            photo = photos[number][0].read_bytes()
            if megapixels is not None:
                photo = grow(open_picture(photo), np.random.default_rng(number), megapixels)
            for way, decode in WAYS.items():
                start = time.thread_time()
                pixels = decode(classifier, photo)
                found[way] = pixels, time.thread_time() - start
        except (OSError, PhotoError) as error:
            reason = error.reason if isinstance(error, PhotoError) else f"cannot be read ({error.strerror})"
            print(f"{photos[number][0]}: left out, as it {reason}", file=sys.stderr, flush=True)
            return None
        return found

    truth: list[int] = []
    seconds = dict.fromkeys(WAYS, 0.0)
    probabilities: dict[str, list[Any]] = {way: [] for way in WAYS}
    with ThreadPoolExecutor(min(BATCH, available_cores())) as pool:
        for start in range(0, len(photos), BATCH):
            numbers = range(start, min(start + BATCH, len(photos)))
            batch = [
                (number, found) for number, found in zip(numbers, pool.map(prepare, numbers), strict=True) if found
            ]
            truth += [photos[number][1] for number, _ in batch]
            for way in WAYS if batch else ():
                pixels, taken = zip(*(found[way] for _, found in batch), strict=True)
                probabilities[way].append(classifier.compute_probabilities(np.stack(pixels)))
                seconds[way] += sum(taken)
    if not truth:
        sys.exit(f"none of the {len(photos)} photos can be read")
    answers = {way: np.concatenate(kept) for way, kept in probabilities.items()}
    difference = np.abs(answers["scaled"] - answers["whole"]).max(1)
    matrices = {way: confusion(np.array(truth), found.argmax(1), found.shape[1]) for way, found in answers.items()}
    return {
        "photos": len(truth),
        "unreadable": len(photos) - len(truth),
        "ways": {
            way: score(matrix) | {"ms_of_one_core": round(1000 * seconds[way] / len(truth), 1)}
            for way, matrix in matrices.items()
        },
        "different_class": round(float((answers["scaled"].argmax(1) != answers["whole"].argmax(1)).mean()), 4),
        "difference_of_probabilities": {
            "mean": round(float(difference.mean()), 4),
            "p99": round(float(np.percentile(difference, 99)), 4),
            "largest": round(float(difference.max()), 4),
        },
    }


def decode_scaled(classifier: Classifier, photo: bytes) -> Any:
    """Decode as ``clothing predict`` does."""
    return classifier.prepare(photo)


def decode_whole(classifier: Classifier, photo: bytes) -> Any:
    """Decode all pixels, then resize."""
    return resize(open_picture(photo), classifier.card.resizing)


WAYS = {"scaled": decode_scaled, "whole": decode_whole}

if __name__ == "__main__":
    main()
