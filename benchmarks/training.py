"""How many photos a second training takes in, beside timm's training script; all in one run, on the same processor.

    python benchmarks/training.py PHOTOS --out training.json

Both train the same architecture at the same size and batch size on a folder's photos, each alone in a process of its
own. timm does what its ``train.py`` does: its loader with its augmentation and workers, its optimiser and loss; as it
is by default, and with the options that make it faster (``--channels-last``, ``--amp --amp-dtype bfloat16``). Ours is
`training.fit`: photos decoded once before the first step (which is measured by itself), augmented in batches. It also
averages the weights and mixes photos, which timm's script leaves out by default. With a GPU, both use it. Both take the
photos as upright JPEGs, made of them first, as timm opens no HEIC.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from machine import child, describe, report
from photos import read_photos
from tables import training_table

CLASSES = 17
BATCH = 32
WARM = 3
"""Steps before the clock starts: memory is taken, and workers fill their queues."""
LONG = 60_000
"""Photos of an epoch on a GPU, so that none ends while the clock runs."""
PACKAGES = ("clothing-classifier", "torch", "torchvision", "timm", "pillow")

Stamps = list[float]


class Enough(Exception):
    """The seconds to measure are over."""


def main() -> None:
    """Measure, write JSON, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    parser.add_argument("--approaches", nargs="*", default=["efficientnet-b0", "mobilenetv2"])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS), help="some ways of training only")
    parser.add_argument("--seconds", type=float, default=15, help="for each way of training and round")
    parser.add_argument("--rounds", type=int, default=2, help="the figures are the rounds' medians")
    parser.add_argument("--photos-loaded", type=int, default=512, help="how many different photos there are")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print("\n" + json.dumps(CHILDREN[options.child](**json.loads(sys.stdin.read()))))
        return
    report(parser, options, measure, training_table)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the photos, run all children, and return what they found."""
    from clothing_classifier.bulk import find_photos
    from clothing_classifier.images import open_picture

    paths: list[str] = []
    pictures = read_photos(find_photos([str(options.photos)]), open_picture)
    for picture in islice(pictures, options.photos_loaded):
        paths.append(str(folder / f"{len(paths):06}.jpg"))
        picture.save(paths[-1], quality=90)
    found: dict[tuple[str, str], list[float]] = {}
    loading: list[float] = []
    device = None
    for _ in range(options.rounds):
        for approach in options.approaches:
            for name in options.ways:
                kind, given = WAYS[name]
                given = {"approach": approach, "paths": paths, "seconds": options.seconds} | given
                rates = found.setdefault((approach, name), [])
                row = child(Path(__file__).resolve(), kind, given)
                told = "failed" if row is None else f"{row['photos_per_second']:.1f} photos/s"
                print(f"{approach}, {name}: {told}", file=sys.stderr, flush=True)
                if row is not None:
                    rates.append(row["photos_per_second"])
                    loading += [row["loaded_per_second"]] if "loaded_per_second" in row else []
                    device = row["device"]
    return {
        "machine": describe(PACKAGES) | {"device": device},
        "batch_size": BATCH,
        "rounds": options.rounds,
        "loaded_per_second": round(median(loading), 1) if loading else None,
        "rates": [
            {"approach": approach, "way": name, "photos_per_second": round(median(rates), 2) if rates else None}
            for (approach, name), rates in found.items()
        ],
    }


def train_ours(
    approach: str, paths: list[str], seconds: float, still: int, side: float, bfloat16: bool
) -> dict[str, Any]:
    """Measure `training.fit` with the approach's recipe."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from clothing_classifier.images import open_picture
    from clothing_classifier.machine import available_cores
    from clothing_classifier.resizing import Resizing, resize
    from clothing_classifier.training.approaches import APPROACHES, IMAGENET_MEAN, IMAGENET_STD, build
    from clothing_classifier.training.fit import Step, choose_device, fit
    from clothing_classifier.training.networks import Statistics

    chosen = APPROACHES[approach]
    resizing = Resizing(chosen.height, chosen.width, "pad", (124, 116, 104))
    start = time.perf_counter()
    with ThreadPoolExecutor(available_cores()) as pool:
        photos = pool.map(lambda path: resize(open_picture(path, target=resizing.target), resizing), paths)
        pixels = np.stack(list(photos))
    loaded = len(paths) / (time.perf_counter() - start)
    labels = np.arange(len(pixels)) % CLASSES
    network = build(chosen, CLASSES, Statistics(IMAGENET_MEAN, IMAGENET_STD))
    recipe = replace(
        chosen.recipe, epochs=1000, still=still, small=1.0, small_side=side, batch_size=BATCH, bfloat16=bfloat16
    )
    stamps: Stamps = []

    def on_step(step: Step) -> None:
        # The first step of an epoch comes after a checkpoint and a validation, which are not of this figure.
        stamps.append(time.perf_counter())
        if len(stamps) > WARM + 1 and stamps[-1] - stamps[WARM] >= seconds:
            raise Enough

    device = choose_device("auto")
    repeats = -(-LONG // len(pixels)) if device.type == "cuda" else 8
    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        fit(
            network,
            (np.concatenate([pixels] * repeats), np.concatenate([labels] * repeats)),
            (pixels[:0], labels[:0]),
            recipe,
            fill=resizing.fill,
            seed=0,
            device=device,
            checkpoint=Path(folder) / "checkpoint.pt",
            on_step=on_step,
        )
    return {"photos_per_second": rate(stamps), "loaded_per_second": loaded, "device": str(device)}


def train_timm(approach: str, paths: list[str], seconds: float, channels_last: bool, bfloat16: bool) -> dict[str, Any]:
    """Measure what timm's ``train.py`` does in an epoch, with its defaults but for size, batch size and optimiser."""
    import timm
    import torch
    from timm.data import ImageDataset, create_loader, resolve_data_config
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    from clothing_classifier.training.approaches import APPROACHES

    chosen = APPROACHES[approach]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = timm.create_model(chosen.backbone, pretrained=False, num_classes=CLASSES).to(device)
    if channels_last:
        network.to(memory_format=torch.channels_last)
    config = resolve_data_config({}, model=network)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=3e-4, weight_decay=0.05)
    criterion = LabelSmoothingCrossEntropy(0.1)
    stamps: Stamps = []
    with tempfile.TemporaryDirectory() as root:
        for number, path in enumerate(islice(cycle(paths), LONG if device.type == "cuda" else 4096)):
            folder = Path(root) / f"{number % CLASSES}"
            folder.mkdir(exist_ok=True)
            os.symlink(Path(path).resolve(), folder / f"{number:06}.jpg")
        loader = create_loader(
            ImageDataset(root),
            input_size=(3, chosen.height, chosen.width),
            batch_size=BATCH,
            is_training=True,
            interpolation="random",
            mean=config["mean"],
            std=config["std"],
            num_workers=4,
            use_prefetcher=device.type == "cuda",
            pin_memory=False,
            device=device,
        )
        network.train()
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            if channels_last:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                loss = criterion(network(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            stamps.append(time.perf_counter())
            if len(stamps) > WARM + 1 and stamps[-1] - stamps[WARM] >= seconds:
                break
        del loader
    return {"photos_per_second": rate(stamps), "device": str(device)}


def rate(stamps: Stamps) -> float:
    """Return the photos a second of the steps after the first few."""
    return BATCH * (len(stamps) - 1 - WARM) / (stamps[-1] - stamps[WARM])


TIMM = "timm's script, as it is"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    TIMM: ("timm", {"channels_last": False, "bfloat16": False}),
    "timm's script, channels last": ("timm", {"channels_last": True, "bfloat16": False}),
    "timm's script, channels last, bfloat16": ("timm", {"channels_last": True, "bfloat16": True}),
    "ours, all blocks learn": ("ours", {"still": 0, "side": 1.0, "bfloat16": False}),
    "ours, all blocks learn, bfloat16": ("ours", {"still": 0, "side": 1.0, "bfloat16": True}),
    "ours, as the recipe says, last epochs": ("ours", {"still": 2, "side": 1.0, "bfloat16": False}),
    "ours, as the recipe says, first epochs": ("ours", {"still": 2, "side": 0.75, "bfloat16": False}),
}
CHILDREN = {"ours": train_ours, "timm": train_timm}

if __name__ == "__main__":
    main()
