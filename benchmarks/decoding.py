"""What decoding JPEGs at a smaller scale saves, and what it does to the answers.

    clothing train efficientnet-b0-frozen --data DATA --split sender --out RUN
    python benchmarks/decoding.py RUN DATA --out decoding.json

The photos that judged the run are grown to 12 megapixels. Its model file then classifies each of them twice: decoded at
the smallest scale that leaves enough pixels, as ``clothing predict`` does, and decoded whole. Same model, same photos,
so all that differs is the decoding.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from photos import grow
from PIL import Image

from clothing_classifier.classifier import BATCH, Classifier
from clothing_classifier.evaluation.metrics import confusion, score
from clothing_classifier.images import open_picture
from clothing_classifier.machine import available_cores
from clothing_classifier.resizing import resize


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder, with its model and its split")
    parser.add_argument("data", type=Path, help="the dataset's folder")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    with (options.run / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    classifier = Classifier.load(options.run / "model.onnx")
    truth = np.array([classifier.labels.index(row["label"]) for row in rows], np.int64)
    seconds = dict.fromkeys(WAYS, 0.0)

    def prepare(number: int) -> dict[str, Any]:
        random = np.random.default_rng(number)
        with Image.open(options.data / rows[number]["path"]) as picture:
            photo = grow(picture, random)
        found = {}
        for way, decode in WAYS.items():
            start = time.thread_time()
            found[way] = decode(classifier, photo)
            seconds[way] += time.thread_time() - start
        return found

    probabilities: dict[str, list[Any]] = {way: [] for way in WAYS}
    with ThreadPoolExecutor(available_cores()) as pool:
        for batch in in_batches(pool.map(prepare, range(len(rows)))):
            for way, kept in probabilities.items():
                kept.append(classifier.compute_probabilities(np.stack([found[way] for found in batch])))
    answers = {way: np.concatenate(kept) for way, kept in probabilities.items()}
    difference = np.abs(answers["scaled"] - answers["whole"]).max(1)
    result = {
        "machine": describe(("clothing-classifier", "pillow", "onnxruntime")),
        "model": classifier.card.name,
        "commit": classifier.card.commit,
        "protocol": f"the {len(rows)} photos of the test part, grown to 12 megapixels",
        "ways": {
            way: {
                key: round(value, 4) for key, value in score(confusion(truth, found.argmax(1), found.shape[1])).items()
            }
            | {"ms_of_one_core": round(1000 * seconds[way] / len(rows), 1)}
            for way, found in answers.items()
        },
        "same_class": round(float((answers["scaled"].argmax(1) == answers["whole"].argmax(1)).mean()), 4),
        "difference_of_probabilities": {
            "mean": round(float(difference.mean()), 4),
            "p99": round(float(np.percentile(difference, 99)), 4),
            "largest": round(float(difference.max()), 4),
        },
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def decode_scaled(classifier: Classifier, photo: bytes) -> Any:
    """Decode as ``clothing predict`` does."""
    return classifier.prepare(photo)


def decode_whole(classifier: Classifier, photo: bytes) -> Any:
    """Decode all pixels, then resize."""
    return resize(open_picture(photo), classifier.card.resizing)


def in_batches(items: Iterator[Any]) -> Iterator[list[Any]]:
    """Yield items as lists of as many as the model computes together."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


WAYS = {"scaled": decode_scaled, "whole": decode_whole}

if __name__ == "__main__":
    main()
