"""How fast photos become predictions, beside what people use instead; all in one run, on the same cores.

    python benchmarks/predict.py PHOTOS --out predict.json

Each tool runs alone, in a process of its own, as its users run it: transformers' pipeline as in its quick start, and
with batches and workers; timm's loader and torchvision's presets as in their inference and reference scripts;
fastai's `get_preds`. What is not installed is left out (pip install transformers fastai). All compute the same
architectures; the peers' weights are random, which does not change how long they take. The photos are a folder's, at
about 400 pixels, and the same ones grown to 12 megapixels. What fails is told and left empty, and the rest goes on;
then it ends with 1. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import chain, cycle, islice, repeat
from pathlib import Path
from statistics import median
from typing import Any

from machine import child, describe, report, run
from photos import grow, read_photos
from tables import first_table, growth_table, limits_table, rates_table

from clothing_classifier.machine import available_cores

HERE = Path(__file__).resolve()
ARCHITECTURES = ("efficientnet-b0", "convnext-tiny", "default")
"""`default` is what a tool takes where nothing is said: here the model that ships, for transformers ViT-Base."""
TOOLS = ("clothing", "transformers", "transformers, batches", "timm", "torchvision", "fastai")
NEEDS = {"transformers": "transformers", "timm": "timm", "torchvision": "torchvision", "fastai": "fastai"}
SIDE = 224
SMALL = 400
DISTINCT = {"small": 200, "large": 40}
PER_CORE = 200
"""Photos a second that timm and torchvision do not reach on one core: so many have to be there for each second."""
PACKAGES = ("clothing-classifier", "onnxruntime", "pillow", "torch", "torchvision", "transformers", "timm", "fastai")


def main() -> None:
    """Measure, write JSON, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    parser.add_argument("--seconds", type=float, default=8, help="for each tool, size and round")
    parser.add_argument("--rounds", type=int, default=3, help="the figures are the rounds' medians")
    usable = available_cores()
    parser.add_argument(
        "--cores",
        type=int,
        nargs="*",
        default=sorted({1, usable}),
        help="how many to measure with; by default 1 and all",
    )
    parser.add_argument("--growth", type=int, nargs="*", default=[100, 1000, 10000], help="numbers of photos")
    parser.add_argument("--only", nargs="*", choices=TOOLS, default=TOOLS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        parser.error("this benchmark needs Linux: elsewhere a tool cannot be bound to some of the cores")
    if options.child:
        print("\n" + json.dumps(CHILDREN[options.child](**json.loads(sys.stdin.read()))))
        return
    if not all(1 <= cores <= usable for cores in options.cores):
        parser.error(f"--cores: must be from 1 to {usable}, as this process may use {usable}")
    report(parser, options, measure, rates_table, limits_table, first_table, growth_table)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make photos and models, run all children, and return what they found."""
    photos = make_photos(options.photos, folder)
    tools = [tool for tool in options.only if find_spec(NEEDS.get(tool.partition(",")[0], "json"))]
    models = make_models(folder, tools)
    found: dict[tuple[str, str, str, int], list[dict[str, float]]] = {}
    # In rounds, as other work on the machine comes and goes: what is compared was measured within the same minutes.
    for _ in range(options.rounds):
        for cores in options.cores:
            for size in ("small", "large"):
                for architecture in ARCHITECTURES:
                    for tool in tools:
                        model = models.get((tool.partition(",")[0], architecture))
                        if model is None:
                            continue
                        given = {"model": model, "folder": str(photos / size), "seconds": options.seconds}
                        row = child(HERE, tool, given, cores)
                        told = "failed" if row is None else f"{row['photos_per_second']:.1f} photos/s"
                        case = f"{architecture}, {size}, {cores} cores, {tool}"
                        print(f"{case}: {told}", file=sys.stderr, flush=True)
                        rows = found.setdefault((tool, architecture, size, cores), [])
                        rows += [] if row is None else [row]
    limits = [
        {"architecture": architecture, "size": size, "cores": cores}
        | (
            child(
                HERE,
                "limit",
                {"model": models["clothing", architecture], "folder": str(photos / size), "seconds": 4},
                cores,
            )
            or dict.fromkeys(("decoding", "computing", "slower", "together"))
        )
        for cores in options.cores
        for size in ("small", "large")
        for architecture in ARCHITECTURES
    ]
    return {
        "machine": describe(PACKAGES),
        "photos": {
            size: {"count": len(list((photos / size).iterdir())), "bytes": weigh(photos / size)} for size in DISTINCT
        },
        "rounds": options.rounds,
        "rates": [
            {"tool": tool, "architecture": architecture, "size": size, "cores": cores}
            | {
                name: round(median(row[name] for row in rows), 3) if rows else None
                for name in ("photos_per_second", "peak_mb")
            }
            for (tool, architecture, size, cores), rows in found.items()
        ],
        "limits": limits,
        "first": measure_first(models, photos / "small", tools, options.rounds),
        "growth": [measure_growth(photos / "small", count, folder) for count in options.growth],
    }


def make_photos(source: Path, folder: Path) -> Path:
    """Write the photos at both sizes."""
    import numpy as np

    from clothing_classifier.bulk import find_photos
    from clothing_classifier.images import open_picture

    random = np.random.default_rng(0)
    for size, count in DISTINCT.items():
        (folder / "photos" / size).mkdir(parents=True)
        # Over and over where they are too few, and each time from the file: so many pictures would fill the memory.
        pictures = chain.from_iterable(read_photos(find_photos([str(source)]), open_picture) for _ in repeat(None))
        for number, picture in enumerate(islice(pictures, count)):
            file = folder / "photos" / size / f"{number:04}.jpg"
            if size == "large":
                file.write_bytes(grow(picture, random))
                continue
            scale = SMALL / min(picture.size)
            picture.resize((round(picture.width * scale), round(picture.height * scale))).save(file, quality=90)
    return folder / "photos"


def make_models(folder: Path, tools: Sequence[str]) -> dict[tuple[str, str], str]:
    """Write the models that need a file; the others are named by their architecture. Weights are random."""
    from dataclasses import replace

    import numpy as np
    import torch

    from clothing_classifier.card import read_model
    from clothing_classifier.resizing import Resizing
    from clothing_classifier.training.approaches import APPROACHES, IMAGENET_MEAN, IMAGENET_STD, build
    from clothing_classifier.training.export import export
    from clothing_classifier.training.networks import Statistics
    from clothing_classifier.training.packing import pack

    shipped = read_model()
    models = {("clothing", "default"): str(shipped.path)}
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    for name in ARCHITECTURES[:2]:
        torch.manual_seed(0)
        approach = replace(APPROACHES[name], height=SIDE, width=SIDE)
        network = build(approach, len(shipped.card.labels), Statistics(IMAGENET_MEAN, IMAGENET_STD)).eval()
        card = replace(shipped.card, name=name, resizing=Resizing(SIDE, SIDE, "pad", (124, 116, 104)))
        file = folder / f"{name}.onnx"
        file.write_bytes(pack(export(network, 1.0, pixels), card, ()))
        models["clothing", name] = str(file)
    models |= {
        ("timm", name): timm for name, timm in zip(ARCHITECTURES, ("efficientnet_b0", "convnext_tiny"), strict=False)
    }
    models |= {
        (tool, name): model for (_, name), model in list(models.items())[-2:] for tool in ("torchvision", "fastai")
    }
    if any(tool.startswith("transformers") for tool in tools):
        from transformers import (
            ConvNextConfig,
            ConvNextForImageClassification,
            ConvNextImageProcessor,
            EfficientNetConfig,
            EfficientNetForImageClassification,
            EfficientNetImageProcessor,
            ViTConfig,
            ViTForImageClassification,
            ViTImageProcessor,
        )

        b0 = EfficientNetConfig(image_size=SIDE, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280)
        for name, network, processor in (
            (
                "efficientnet-b0",
                EfficientNetForImageClassification(b0),
                EfficientNetImageProcessor(size={"height": SIDE, "width": SIDE}),
            ),
            (
                "convnext-tiny",
                ConvNextForImageClassification(ConvNextConfig()),
                ConvNextImageProcessor(size={"shortest_edge": SIDE}),
            ),
            ("default", ViTForImageClassification(ViTConfig()), ViTImageProcessor()),
        ):
            network.save_pretrained(folder / f"transformers-{name}")
            processor.save_pretrained(folder / f"transformers-{name}")
            models["transformers", name] = str(folder / f"transformers-{name}")
    return models


def rate(batches: Iterator[Sequence[Any]], seconds: float) -> dict[str, Any]:
    """Return how many answers come a second, and the most memory that the process has taken.

    Whole batches are counted, as their answers come at once. What came in the first second, or first, is not.
    """
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < 1:
        count += len(next(batches))
    start, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds:
        count += len(next(batches))
    return {"photos_per_second": round(count / taken, 2), "peak_mb": peak_megabytes()}


def in_batches(answers: Iterable[Any], size: int = 16) -> Iterator[list[Any]]:
    """Yield answers that come one by one as lists of so many."""
    answers = iter(answers)
    while batch := list(islice(answers, size)):
        yield batch


def peak_megabytes() -> float | None:
    """Return the most memory that this process has taken, where the system tells.

    That of ``getrusage`` is the parent's where that was larger: it is not begun anew with a program.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return None if peak is None else round(int(peak) / 1024, 1)


def endless(folder: str) -> Iterator[str]:
    """Yield the folder's photos, over and over."""
    return cycle(sorted(str(path) for path in Path(folder).iterdir()))


def run_clothing(model: str, folder: str, seconds: float) -> dict[str, float]:
    """Measure `clothing_classifier.bulk`, which is what ``clothing predict`` runs."""
    from clothing_classifier.bulk import predict_photos
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.machine import share_cores

    workers, together = share_cores()
    rows = predict_photos(Classifier.load(model, threads=together), endless(folder), threads=workers)
    return rate(in_batches(rows), seconds)


def run_transformers(model: str, folder: str, seconds: float) -> dict[str, float]:
    """Measure the pipeline as in transformers' quick start."""
    from transformers import pipeline

    classify = pipeline("image-classification", model=model)
    return rate(([classify(path)] for path in endless(folder)), seconds)


def run_transformers_batches(model: str, folder: str, seconds: float) -> dict[str, float]:
    """Measure the pipeline as its page on performance advises: a stream, batches, workers that load."""
    from torch.utils.data import Dataset
    from transformers import pipeline

    paths = list(islice(endless(folder), 100_000))

    class Photos(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, number: int) -> str:
            return paths[number]

    classify = pipeline("image-classification", model=model)
    workers = len(os.sched_getaffinity(0))
    return rate(in_batches(classify(Photos(), batch_size=16, num_workers=workers)), seconds)


def run_timm(model: str, folder: str, seconds: float) -> dict[str, float]:
    """Measure timm's loader and model as in its inference script."""
    import timm
    import torch
    from timm.data import ImageDataset, create_loader, resolve_data_config

    network = timm.create_model(model, pretrained=False).eval()
    config = resolve_data_config({}, model=network)
    with tempfile.TemporaryDirectory() as root:
        link(folder, Path(root) / "photos", photos_for(seconds))
        loader = create_loader(
            ImageDataset(root),
            input_size=config["input_size"],
            batch_size=32,
            use_prefetcher=False,
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            crop_pct=config["crop_pct"],
            num_workers=len(os.sched_getaffinity(0)),
            device=torch.device("cpu"),
        )
        return rate(answers(network, (batch for batch, _ in loader)), seconds)


def run_torchvision(model: str, folder: str, seconds: float) -> dict[str, float]:
    """Measure torchvision's evaluation preset and model as in its reference scripts."""
    import torch
    import torchvision
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms._presets import ImageClassification

    network = getattr(torchvision.models, model)(weights=None).eval()
    with tempfile.TemporaryDirectory() as root:
        link(folder, Path(root) / "photos", photos_for(seconds))
        data = ImageFolder(root, ImageClassification(crop_size=SIDE, resize_size=256))
        loader = DataLoader(data, batch_size=32, num_workers=len(os.sched_getaffinity(0)))
        with torch.inference_mode():
            return rate(answers(network, (batch for batch, _ in loader)), seconds)


def run_fastai(model: str, folder: str, seconds: float) -> dict[str, float]:
    """Measure fastai's `get_preds` over a test loader, in rounds of 64 photos."""
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Resize, vision_learner

    paths = list(islice(endless(folder), 64))
    block = DataBlock((ImageBlock, CategoryBlock), get_y=lambda path: str(path)[-5], item_tfms=Resize(SIDE))
    loaders = block.dataloaders(paths, bs=32, num_workers=len(os.sched_getaffinity(0)))
    learner = vision_learner(loaders, model, pretrained=False, normalize=False)

    def forever() -> Iterator[list[Any]]:
        while True:
            with learner.no_bar():
                predictions, _ = learner.get_preds(dl=learner.dls.test_dl(paths))
            yield predictions.tolist()

    return rate(forever(), seconds)


def photos_for(seconds: float) -> int:
    """Return more photos than a loader takes in: in these seconds, and the few before, for which workers read ahead."""
    return round(PER_CORE * (seconds + 2)) * len(os.sched_getaffinity(0))


def answers(network: Any, batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the network's answers to each batch."""
    import torch

    for batch in batches:
        with torch.inference_mode():
            yield network(batch).softmax(1).topk(5).indices.tolist()


def measure_limit(model: str, folder: str, seconds: float) -> dict[str, float]:
    """Measure decoding alone and computing alone, each on all cores, and what the two could do at best together."""
    import numpy as np

    from clothing_classifier.bulk import GROUP
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.machine import share_cores

    workers, together = share_cores()
    classifier = Classifier.load(model, threads=together)
    paths = endless(folder)
    pixels = np.stack([classifier.prepare(path) for path in islice(paths, GROUP)])
    with ThreadPoolExecutor(workers) as pool:
        decoded = ([photo] for photo in flow(pool, classifier.prepare, paths, 2 * workers))
        computed = flow(pool, classifier.compute_probabilities, repeat(pixels), 2 * workers)
        decoding, computing = (rate(batches, seconds)["photos_per_second"] for batches in (decoded, computed))
    return {
        "decoding": decoding,
        "computing": computing,
        "slower": min(decoding, computing),
        "together": round(1 / (1 / decoding + 1 / computing), 2),
    }


def flow(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterator[Any], ahead: int) -> Iterator[Any]:
    """Yield what comes of items, in their order; no thread waits for others to finish, as at the end of a batch."""
    waiting = deque(pool.submit(work, item) for item in islice(items, ahead))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(work, item) for item in islice(items, 1))


def measure_first(
    models: dict[tuple[str, str], str], folder: Path, tools: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Measure the seconds from the start of a process to its first prediction, with each tool's default model."""
    photo = str(min(folder.iterdir()))
    commands = {"clothing": [sys.executable, "-m", "clothing_classifier", "predict", photo, "--format", "csv"]}
    if "transformers" in tools:
        code = "import sys; from transformers import pipeline; "
        code += "print(pipeline('image-classification', model=sys.argv[1])(sys.argv[2]))"
        commands["transformers"] = [sys.executable, "-c", code, models["transformers", "default"], photo]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            printed = run(f"first prediction, {name}", command)
            if number and printed is not None:  # the first run of each fills the disk's cache
                seconds[name].append(time.perf_counter() - start)
    return {name: round(median(values), 3) if values else None for name, values in seconds.items()}


def measure_growth(photos: Path, count: int, folder: Path) -> dict[str, Any]:
    """Measure ``clothing predict`` on so many photos, start to end."""
    many = folder / f"many-{count}"
    link(str(photos), many, count)
    start = time.perf_counter()
    command = [sys.executable, "-m", "clothing_classifier", "predict", str(many), "--out", str(folder / "many.csv")]
    code = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024); sys.exit(code)"
    printed = run(f"clothing predict, {count} photos", [sys.executable, "-c", code, *command])
    seconds = time.perf_counter() - start
    shutil.rmtree(many)
    if printed is None:
        return {"photos": count} | dict.fromkeys(("seconds", "photos_per_second", "peak_mb"))
    return {
        "photos": count,
        "seconds": round(seconds, 2),
        "photos_per_second": round(count / seconds, 1),
        "peak_mb": round(float(printed), 1),
    }


def link(source: str, target: Path, count: int) -> None:
    """Fill a folder with so many names of the source's photos."""
    target.mkdir(parents=True)
    for number, path in enumerate(islice(endless(source), count)):
        os.link(path, target / f"{number:06}.jpg")


def weigh(folder: Path) -> int:
    """Return the mean size of a folder's files, in bytes."""
    sizes = [path.stat().st_size for path in folder.iterdir()]
    return sum(sizes) // len(sizes)


CHILDREN = {
    "clothing": run_clothing,
    "transformers": run_transformers,
    "transformers, batches": run_transformers_batches,
    "timm": run_timm,
    "torchvision": run_torchvision,
    "fastai": run_fastai,
    "limit": measure_limit,
}

if __name__ == "__main__":
    main()
