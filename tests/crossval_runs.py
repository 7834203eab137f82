"""Small cross-validation runs in the format that `clothing crossval` leaves behind; for tests of what reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from clothing_classifier.evaluation.metrics import measure_folds

CLASSES = ("Dress", "Pants", "Shirt", "Skirt")
DIGEST = "5eed" * 16


class Data(NamedTuple):
    """Photos that lie in a folder: their names, classes and senders."""

    root: Path
    labels: tuple[str, ...]
    paths: tuple[str, ...]
    truth: tuple[int, ...]
    senders: tuple[str, ...]


def draw(root: Path, photos: int = 60, senders: int = 12, labels: Sequence[str] = CLASSES) -> Data:
    """Draw photos of classes in turn, each a shape in its class's colour."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    paths, truth = [], []
    for i in range(photos):
        kind = i % len(labels)
        picture = Image.new("RGB", (90, 120) if i % 5 else (120, 90), (200, 196, 190))
        hue = (40 + 50 * kind % 200, 90, 220 - 45 * kind % 200)
        ImageDraw.Draw(picture).rectangle((20, 20 + i % 20, 70, 80), fill=hue)
        path = f"images/photo-{i:03}.png"
        picture.save(root / path)
        paths.append(path)
        truth.append(kind)
    return Data(root, tuple(labels), tuple(paths), tuple(truth), tuple(f"s{i % senders}" for i in range(photos)))


def guess(data: Data, skill: float, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return probabilities of a model that is right about so often, ``float32 [N, classes]``."""
    random = np.random.default_rng(seed)
    truth = np.array(data.truth)
    said = np.where(random.random(len(truth)) < skill, truth, (truth + 1) % len(data.labels))
    logits = random.normal(0, 0.5, (len(truth), len(data.labels)))
    logits[np.arange(len(truth)), said] += random.uniform(2, 5, len(truth))
    likelihood = np.exp(logits)
    return np.asarray(likelihood / likelihood.sum(1, keepdims=True), np.float32)


def write_run(
    folder: Path,
    data: Data,
    probabilities: np.ndarray[Any, np.dtype[np.float32]],
    approach: str = "custom-cnn",
    protocol: str = "random",
    *,
    weights: str = "none",
    epochs: int = 3,
    digest: str = DIGEST,
    evidence: bool = True,
    **config: Any,
) -> Path:
    """Write a run's folder and return it; further arguments are entries of its ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = np.array(data.truth)
    predicted = probabilities.argmax(1)
    groups = np.unique(data.senders, return_inverse=True)[1]
    folds = groups % 5 if protocol == "sender" else np.arange(len(truth)) // len(data.labels) % 5
    write_json(
        folder / "config.json",
        {
            "approach": approach,
            "summary": f"{approach}, in words",
            "backbone": None,
            "recipe": {"epochs": epochs},
            "resizing": {"height": 24, "width": 18, "mode": "pad", "fill": [128, 128, 128]},
            "labels": list(data.labels),
            "weights": {"source": weights, "sha256": None, "licence": "not applicable", "fresh": []},
            "data": {"digest": digest, "edition": "GitHub", "photos": len(truth), "senders": int(groups.max()) + 1},
            "format": 1,
            "protocol": protocol,
            "folds": 5,
            "seed": 0,
            **config,
        },
    )
    metrics = {
        "protocol": f"5 folds, {protocol}",
        **measure_folds(
            truth,
            probabilities,
            data.labels,
            folds,
            groups=groups if protocol == "sender" else None,
            senders=groups,
            kids=[bool(i % 3) for i in range(len(truth))],
            subsets={"top10": data.labels[:2]},
        ),
        "cost": {
            "parameters": 2_200_000,
            "multiply_adds": 310_000_000,
            "bytes": 8_900_000,
            "milliseconds": 9.1,
            "training_seconds": 4800,
            "device": "cpu, 2 cores",
        },
        "training": {"command": f"clothing crossval {approach} --folds {protocol}", "version": "0.1.0", "commit": "c0"},
    }
    write_json(folder / "metrics.json", metrics)
    write_table(
        folder / "predictions.csv",
        ("path", "label", "sender", "fold", "predicted", *data.labels),
        (
            (path, data.labels[true], sender, fold, data.labels[best], *(f"{p:.6f}" for p in row))
            for path, true, sender, fold, best, row in zip(
                data.paths, data.truth, data.senders, folds, predicted, probabilities, strict=True
            )
        ),
    )
    columns = ("fold", "epoch", "learning_rate", "train_loss", "validation_loss", "validation_accuracy", "seconds")
    rows = [(f, e, 1e-3, 2 / e, 2.1 / e, 0.2 * e, 3.5) for f in range(5) for e in range(1, epochs + 1)]
    write_table(folder / "curves.csv", columns, rows)
    if evidence:
        maps = np.full((len(truth), 2, 4, 3), np.nan, np.float16)
        wrong = np.flatnonzero(predicted != truth)
        maps[wrong, 0] = np.linspace(-1, 3, 12).reshape(4, 3)
        maps[wrong, 1] = np.linspace(2, -2, 12).reshape(4, 3)
        np.save(folder / "evidence.npy", maps)
    return folder


def write_json(file: Path, content: object) -> None:
    """Write a JSON file."""
    file.write_text(json.dumps(content, indent=2), "utf-8")


def write_table(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file."""
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as opened:
        writer = csv.writer(opened, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows(rows)
