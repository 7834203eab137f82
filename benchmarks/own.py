"""How long a model of one's own classes takes, on a processor alone: photos in folders to a finished model file.

    python benchmarks/own.py DATA --out own.json

Photos of three of the dataset's classes stand in for one's own. The shipped model has learned from them, so that only
seconds and memory say something here, and no figure of quality is kept. Nothing is taken from the cache.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from machine import describe

from clothing_classifier.classifier import Classifier

CLASSES = ("Hat", "Skirt", "Undershirt")


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the dataset's folder: images/ beside images.csv")
    parser.add_argument("--each", type=int, default=100, help="photos of each class")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = fill(options.data, Path(folder) / "own", options.each)
        taken = train(Path(folder))
    card = Classifier.load().card
    result = {
        "machine": describe(("clothing-classifier", "onnxruntime", "scikit-learn")),
        "model": card.name,
        "commit": card.commit,
        "classes": len(CLASSES),
        "photos": photos,
        **taken,
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def fill(data: Path, own: Path, each: int) -> int:
    """Make a folder per class, with so many of its photos at most, and return how many there are of all."""
    with (data / "images.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, label in enumerate(CLASSES, 1):
        # Names of one's own: with the dataset's, the folders would be an edition of it.
        (own / f"kind-{number}").mkdir(parents=True)
        found = (data / "images" / f"{row['image']}.jpg" for row in rows if row["label"] == label)
        for photo in islice((path.resolve() for path in found if path.exists()), each):
            (own / f"kind-{number}" / photo.name).symlink_to(photo)
    return len(list(own.rglob("*.jpg")))


def train(folder: Path) -> dict[str, Any]:
    """Train on the folder's photos, and return seconds and memory from the start of the process to its end."""
    command = [sys.executable, "-m", "clothing_classifier", "train"]
    command += ["--data", str(folder / "own"), "--out", str(folder / "run")]
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
    )
    seconds = time.perf_counter() - start
    size = (folder / "run" / "model.onnx").stat().st_size
    return {"seconds": round(seconds, 1), "peak_mb": round(float(done.stdout), 1), "model_mb": round(size / 1e6, 1)}


if __name__ == "__main__":
    main()
