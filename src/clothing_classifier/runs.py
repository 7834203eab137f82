"""One run, from a folder of photos to a measured model file; its folder holds all that made it.

``clothing train custom-cnn --data DIR --out RUN`` runs it. What a run leaves behind:

=================== ====================================================================================
``config.json``     everything that decides the result: approach, recipe, split, seed, weights, data
``manifest.csv``    the photos as they were checked, with what was dropped and why
``split.csv``       which photo taught, which calibrated, which judged
``checkpoint.pt``   the state after the last whole epoch; a run that was stopped goes on from it
``curves.csv``      loss, accuracy and seconds of each epoch
``metrics.json``    the figures of the model file on the validation and test parts
``predictions.csv`` the model file's probabilities for each photo of those parts
``model.onnx``      the model file
=================== ====================================================================================
"""

from __future__ import annotations

import csv
import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from clothing_classifier import __version__
from clothing_classifier.dataset import Manifest, Photo, read_dataset
from clothing_classifier.resizing import Resizing
from clothing_classifier.training.splits import PARTS, split

if TYPE_CHECKING:
    from clothing_classifier.training.approaches import Approach
    from clothing_classifier.training.fit import Step
    from clothing_classifier.training.networks import Classifying, Statistics

SplitChoice = Literal["random", "sender", "given"]
"""How photos are split: by chance, with no sender on two sides, or as the data's own folders say."""

LICENCE = "Apache-2.0"

_BATCH = 64

_PROTOCOLS = {
    "random": "one split, stratified by class at random (senders on both sides)",
    "sender": "one split, stratified by class, no sender on two sides",
    "given": "the data's own train, validation and test folders",
}


class RunError(Exception):
    """A run cannot be started or continued; the message names its folder, the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person chooses for a run.

    Attributes:
        approach: an entry of the table of approaches.
        data: the dataset's folder, in any of its editions.
        out: the run's folder; made if it is not there.
        split: how photos are split; ``None`` takes the data's own parts where there are some, otherwise chance.
        seed: what all random numbers come from.
        weights: ``"none"``, ``"hub"`` or a safetensors file.
        weights_licence: what the card shall say of the weights' licence.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        epochs: instead of the recipe's, or ``None``.
    """

    approach: Approach
    data: Path
    out: Path
    split: SplitChoice | None = None
    seed: int = 0
    weights: str = "hub"
    weights_licence: str | None = None
    device: str = "auto"
    epochs: int | None = None


class Reporter(Protocol):
    """What a run tells while it goes on; the command line draws progress bars from it."""

    def stage(self, name: str) -> None:
        """Say which stage begins."""

    def progress(self, done: int, total: int) -> None:
        """Say how far the stage is, in photos."""

    def step(self, step: Step, epochs: int) -> None:
        """Say how far the training is."""


class _Silent:
    def stage(self, name: str) -> None: ...

    def progress(self, done: int, total: int) -> None: ...

    def step(self, step: Step, epochs: int) -> None: ...


def train(settings: Settings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Train, calibrate, export and measure one model, or go on where the run in ``settings.out`` was stopped.

    Args:
        settings: what a person chose.
        reporter: what is told of the progress; nothing by default.

    Returns:
        The content of ``metrics.json``: the figures of ``model.onnx`` by part.

    Raises:
        RunError: the folder holds another run, or a part has no photos.
        DatasetError, SplitError, WeightsError, CheckpointError, ExportError, PhotoError, ValueError: as their rooms
            say.
    """
    import torch

    from clothing_classifier.training.approaches import build
    from clothing_classifier.training.fit import choose_device, fit
    from clothing_classifier.training.weights import load_weights

    reporter = reporter or _Silent()
    device = choose_device(settings.device)
    approach = settings.approach
    if settings.epochs is not None:
        approach = replace(approach, recipe=replace(approach.recipe, epochs=settings.epochs))
    prepared = _prepare(settings, approach, reporter)

    torch.manual_seed(settings.seed)
    network = build(approach, len(prepared.labels), prepared.statistics)
    origin = load_weights(network.features, approach.backbone, settings.weights, settings.weights_licence)
    config: dict[str, Any] = {
        "approach": approach.name,
        "backbone": approach.backbone,
        "recipe": approach.recipe.to_dict(),
        "resizing": prepared.resizing.to_dict(),
        "mean": list(prepared.statistics.mean),
        "std": list(prepared.statistics.std),
        "labels": list(prepared.labels),
        "split": prepared.protocol,
        "seed": settings.seed,
        "weights": origin.to_dict(),
        "data": {"digest": prepared.manifest.digest, "edition": prepared.manifest.edition},
    }
    _claim(settings.out, config)
    prepared.manifest.write(settings.out / "manifest.csv")
    _write_table(
        settings.out / "split.csv",
        ("path", "label", "sender", "part"),
        [(p.path, p.label, p.sender or "", part) for p, part in zip(prepared.photos, prepared.parts, strict=True)],
    )

    reporter.stage("Training")
    network, curves = fit(
        network,
        prepared.of("train"),
        prepared.of("validation"),
        approach.recipe,
        fill=prepared.resizing.fill,
        seed=settings.seed,
        device=device,
        checkpoint=settings.out / "checkpoint.pt",
        on_step=lambda step: reporter.step(step, approach.recipe.epochs),
    )
    _write_table(settings.out / "curves.csv", tuple(curves[0]), [tuple(row.values()) for row in curves])

    reporter.stage("Calibrating, exporting and measuring")
    return _finish(settings, approach, prepared, network, config["weights"], sum(row["seconds"] for row in curves))


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The photos of a run, split and loaded."""

    manifest: Manifest
    photos: Sequence[Photo]
    labels: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    parts: npt.NDArray[np.str_]
    protocol: SplitChoice
    resizing: Resizing
    statistics: Statistics
    pixels: npt.NDArray[np.uint8]

    def of(self, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        return self.pixels[self.parts == part], self.truth[self.parts == part]


def _prepare(settings: Settings, approach: Approach, reporter: Reporter) -> _Prepared:
    from clothing_classifier.training.approaches import IMAGENET_MEAN, IMAGENET_STD
    from clothing_classifier.training.networks import Statistics
    from clothing_classifier.training.pixels import load_pixels, measure_colour, measure_statistics

    reporter.stage("Checking the photos")
    manifest = read_dataset(settings.data, progress=reporter.progress)
    photos = manifest.kept
    protocol, parts = _split(manifest, settings)
    labels = manifest.classes
    truth = np.array([labels.index(photo.label or "") for photo in photos], np.int64)
    for part in PARTS:
        if not (parts == part).any():
            raise RunError(f"{settings.data}: the {part} part has no photos; add some, or choose another --split")

    # A pretrained backbone keeps the normalisation that it learned with; a fresh network gets its photos' own.
    pretrained = approach.backbone is not None
    teaching = [photo for photo, part in zip(photos, parts, strict=True) if part == "train"]
    red, green, blue = IMAGENET_MEAN if pretrained else measure_colour(manifest.root, teaching)
    resizing = Resizing(approach.height, approach.width, "pad", (round(red), round(green), round(blue)))
    reporter.stage("Loading the photos")
    pixels = load_pixels(manifest.root, photos, resizing, progress=reporter.progress)
    own = measure_statistics(pixels[parts == "train"])
    statistics = Statistics(IMAGENET_MEAN, IMAGENET_STD) if pretrained else own
    return _Prepared(manifest, photos, labels, truth, parts, protocol, resizing, statistics, pixels)


def _finish(
    settings: Settings,
    approach: Approach,
    prepared: _Prepared,
    network: Classifying,
    weights: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Calibrate on the validation part, make the model file, and measure that file."""
    from clothing_classifier.card import FORMAT_VERSION, ModelCard
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.evaluation.metrics import measure
    from clothing_classifier.training.calibration import choose_threshold, fit_temperature
    from clothing_classifier.training.export import export, pack
    from clothing_classifier.training.fit import compute_logits

    labels, parts = prepared.labels, prepared.parts
    pixels, truth = prepared.of("validation")
    logits = compute_logits(network, pixels)
    temperature = fit_temperature(logits, truth)
    likelihood = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
    promise = choose_threshold(likelihood / likelihood.sum(1, keepdims=True), truth)
    counts = Counter(photo.label for photo in prepared.photos)
    card = ModelCard(
        name=approach.name,
        labels=labels,
        resizing=prepared.resizing,
        threshold=promise.threshold,
        temperature=temperature,
        promise={**promise.to_dict(), "measured_on": f"the validation part, {len(truth)} photos"},
        metrics={},
        data={
            "edition": prepared.manifest.edition,
            "digest": prepared.manifest.digest,
            "photos": len(prepared.photos),
            "classes": {label: counts[label] for label in labels},
            "parts": {part: int((parts == part).sum()) for part in PARTS},
            "split": _PROTOCOLS[prepared.protocol],
            "seed": settings.seed,
        },
        training={
            "approach": approach.name,
            "summary": approach.summary,
            "backbone": approach.backbone,
            "recipe": approach.recipe.to_dict(),
            "command": _command(settings, prepared.protocol),
            "seconds": round(seconds),
        },
        weights=weights,
        licence=LICENCE,
        version=__version__,
        commit=_commit(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        format=FORMAT_VERSION,
    )
    graph = export(network, temperature, pixels[:16])
    model = settings.out / "model.onnx"
    _write_bytes(model, pack(graph, card))

    # Measured through the file and the class that users have, so that what is measured is what ships.
    classifier = Classifier.load(model)
    metrics: dict[str, Any] = {}
    rows: list[Sequence[Any]] = []
    for part in ("validation", "test"):
        pixels, truth = prepared.of(part)
        batches = [classifier.run(pixels[i : i + _BATCH]).probabilities for i in range(0, len(pixels), _BATCH)]
        probabilities = np.concatenate(batches)
        photos = [photo for photo, where in zip(prepared.photos, parts, strict=True) if where == part]
        senders = [photo.sender or photo.path for photo in photos] if prepared.protocol == "sender" else None
        metrics[part] = {
            "protocol": f"{_PROTOCOLS[prepared.protocol]}; {part} part, seed {settings.seed}",
            **measure(truth, probabilities, labels, threshold=promise.threshold, groups=senders),
        }
        for photo, row in zip(photos, probabilities, strict=True):
            rows.append((photo.path, part, photo.label, labels[int(row.argmax())], *(f"{p:.6f}" for p in row)))
    _write_bytes(model, pack(graph, replace(card, metrics=metrics)))
    _write_table(settings.out / "predictions.csv", ("path", "part", "label", "predicted", *labels), rows)
    _write_bytes(settings.out / "metrics.json", _json(metrics))
    return metrics


def _split(manifest: Manifest, settings: Settings) -> tuple[SplitChoice, npt.NDArray[np.str_]]:
    photos = manifest.kept
    given = [photo.part for photo in photos]
    choice = settings.split or ("given" if all(given) else "random")
    if choice == "given":
        if not all(given):
            raise RunError(f"{settings.data}: has no train, validation and test folders; choose another --split")
        return choice, np.array(given)
    labels, senders = [photo.label or "" for photo in photos], [photo.sender for photo in photos]
    return choice, split(labels, senders, choice, seed=settings.seed)


def _claim(out: Path, config: dict[str, Any]) -> None:
    """Write the run's configuration, or make sure that the folder holds a run of the same one."""
    file = out / "config.json"
    wanted = json.loads(_json(config))
    if not file.exists():
        if (out / "checkpoint.pt").exists():
            raise RunError(f"{out}: holds a checkpoint but no config.json; choose another folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        _write_bytes(file, _json(config))
        return
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise RunError(f"{file}: is damaged; choose another folder with --out, or delete this one") from error
    different = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if different:
        raise RunError(
            f"{out}: holds a run that differs in: {', '.join(different)}; choose another folder with --out, "
            "or repeat that run's command to continue it"
        )


def _command(settings: Settings, protocol: SplitChoice) -> str:
    """Return the command that makes the run again; paths are shortened to their last part, machines differ."""
    words = ["clothing", "train", settings.approach.name, "--data", settings.data.resolve().name]
    words += ["--out", settings.out.resolve().name, "--split", protocol, "--seed", str(settings.seed)]
    if settings.approach.backbone is not None:
        weights = settings.weights
        words += ["--weights", weights if weights in ("hub", "none") else Path(weights).name]
    if settings.epochs is not None:
        words += ["--epochs", str(settings.epochs)]
    return " ".join(words)


def _commit() -> str | None:
    """Return the commit of the checkout that this package runs from, ``None`` for an installed one."""
    here = Path(__file__).resolve().parent
    if not (here.parents[1] / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _write_bytes(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    partial.replace(path)
