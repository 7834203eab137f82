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

With ``--crossval FOLDS`` all photos teach; what the card says of the model comes from that cross-validation of the same
recipe (see `judgement`), and there is no ``predictions.csv``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from clothing_classifier import __version__
from clothing_classifier.runs.folder import (
    Reporter,
    RunError,
    Silent,
    claim,
    find_commit,
    settle_table,
    to_json,
    write_bytes,
    write_table,
)
from clothing_classifier.runs.judgement import Judgement, read_judgement
from clothing_classifier.runs.photos import (
    Loaded,
    Selection,
    Settings,
    SplitChoice,
    choose_statistics,
    load,
    look,
    record,
    require_whole_parts,
    select,
    settle,
    start,
)
from clothing_classifier.training.recipe import CURVES
from clothing_classifier.training.splits import PARTS, split

if TYPE_CHECKING:
    from clothing_classifier.training.approaches import Approach
    from clothing_classifier.training.calibration import Calibration
    from clothing_classifier.training.networks import Classifying
    from clothing_classifier.training.subspace import Subspace

LICENCE = "Apache-2.0"

_BATCH = 64
_COMPARED = 500
"""About how many photos the file is compared with the network on."""

_PROTOCOLS = {
    "random": "one split, stratified by class at random",
    "sender": "one split, stratified by class, no sender on two sides",
    "given": "the data's own train, validation and test parts",
    "none": "none: all photos teach, and cross-validation judges",
}


def train(settings: Settings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Train, calibrate, export and measure one model, or go on where the run in ``settings.out`` was stopped.

    Args:
        settings: what a person chose.
        reporter: what is told of the progress; nothing by default.

    Returns:
        The content of ``metrics.json``: the figures of ``model.onnx`` by part, or of its recipe by protocol.

    Raises:
        RunError: the folder holds another run or one of other parts, or a part has no photos.
        DatasetError, SplitError, WeightsError, CheckpointError, ExportError, PhotoError, ValueError: as their rooms
            say.
    """
    from clothing_classifier.training.fit import choose_device
    from clothing_classifier.training.learn import learn

    reporter = reporter or Silent()
    find_commit()  # before anybody commits beside the run
    device = choose_device(settings.device)
    approach = settle(settings)
    prepared = _prepare(settings, approach, reporter)
    loaded, parts = prepared.loaded, prepared.parts

    statistics = choose_statistics(approach, loaded.pixels[parts == "train"])
    network, origin = start(approach, settings, len(loaded.labels), statistics)
    config = record(approach, loaded, origin, statistics) | {"split": prepared.protocol, "seed": settings.seed}
    judgement = read_judgement(settings.crossvals, config) if settings.crossvals else None
    if judgement is not None:
        config["crossvals"] = judgement.sources
    claim(settings.out, config)
    settle_table(
        settings.out / "split.csv",
        ("path", "label", "sender", "part"),
        [(p.path, p.label, p.sender or "", part) for p, part in zip(loaded.photos, parts, strict=True)],
        decisive=("path", "sender", "part"),
    )
    loaded.manifest.write(settings.out / "manifest.csv")

    teaching = parts == "train"
    views = look(network, origin, loaded.pixels, device, reporter)
    reporter.stage("Training")
    started = time.monotonic()
    network, curves = learn(
        network,
        approach.recipe,
        prepared.of("train"),
        prepared.of("validation"),
        views=views and [view[teaching] for view in views],
        groups=loaded.groups[teaching],
        fill=loaded.resizing.fill,
        seed=settings.seed,
        device=device,
        checkpoint=settings.out / "checkpoint.pt",
        on_step=lambda step: reporter.step(step, approach.recipe.all_epochs),
    )
    passed = time.monotonic() - started
    write_table(settings.out / "curves.csv", CURVES, [[row[name] for name in CURVES] for row in curves])

    reporter.stage("Calibrating, exporting and measuring")
    seconds = sum(row["seconds"] for row in curves) or passed
    return _finish(settings, approach, prepared, network, config["weights"], seconds, judgement)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The photos of a run, and the part that each belongs to."""

    loaded: Loaded
    parts: npt.NDArray[np.str_]
    protocol: SplitChoice | Literal["none"]

    @property
    def split(self) -> str:
        """How the photos were split, in words."""
        both = self.protocol == "random" and self.loaded.manifest.senders_known
        return _PROTOCOLS[self.protocol] + (" (senders on both sides)" if both else "")

    def of(self, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        return self.loaded.pixels[self.parts == part], self.loaded.truth[self.parts == part]


def _prepare(settings: Settings, approach: Approach, reporter: Reporter) -> _Prepared:
    selection = select(settings, approach, reporter)
    protocol, parts = _split(selection, settings)
    parts = parts[selection.chosen]
    for part in PARTS if protocol != "none" else ():
        if not (parts == part).any():
            raise RunError(f"{settings.data}: the {part} part has no photos; add some, or choose another --split")
    untaught = sorted({*selection.labels} - {selection.labels[number] for number in selection.truth[parts == "train"]})
    if untaught and protocol != "none":
        do = "add some to it" if protocol == "given" else "add photos of other senders, or choose another --split"
        raise RunError(f"{settings.data}: the train part has no photos of {', '.join(untaught)}; {do}")
    return _Prepared(load(selection, reporter), parts, protocol)


def _finish(
    settings: Settings,
    approach: Approach,
    prepared: _Prepared,
    network: Classifying,
    weights: dict[str, Any],
    seconds: float,
    judgement: Judgement | None,
) -> dict[str, Any]:
    """Calibrate, make the model file, and measure that file on the photos that did not teach it."""
    from clothing_classifier.card import ModelCard
    from clothing_classifier.training.calibration import choose_threshold, fit_calibration
    from clothing_classifier.training.export import export
    from clothing_classifier.training.fit import embed
    from clothing_classifier.training.packing import pack, store_in_half
    from clothing_classifier.training.subspace import attach, fit_subspace

    loaded, parts = prepared.loaded, prepared.parts
    labels = loaded.labels
    training: dict[str, Any] = {}
    chosen = interval = None
    subspace = fit_subspace(embed(network, prepared.of("train")[0]))
    if judgement is not None:
        calibration, promise = judgement.calibration, judgement.promise
        training["crossvals"] = judgement.sources
    else:
        pixels, truth = prepared.of("validation")
        embeddings = embed(network, pixels)
        logits, residuals = network.judge(embeddings), subspace.measure(embeddings)
        calibration = fit_calibration(logits, residuals, truth)
        chosen = choose_threshold(calibration.apply(logits, residuals), truth)
        promise = asdict(chosen)
    counts = Counter(photo.label for photo in loaded.photos)
    card = ModelCard(
        name=approach.name,
        labels=labels,
        resizing=loaded.resizing,
        threshold=promise["threshold"],
        temperature=calibration.temperature,
        promise=promise,
        metrics={},
        data={
            "edition": loaded.manifest.edition,
            "digest": loaded.manifest.digest,
            "photos": len(loaded.photos),
            "classes": {label: counts[label] for label in labels},
            "parts": {part: int((parts == part).sum()) for part in PARTS},
            "split": prepared.split,
            "seed": settings.seed,
        },
        training={
            "approach": approach.name,
            "summary": approach.summary,
            "backbone": approach.backbone,
            "recipe": asdict(approach.recipe),
            "command": settings.describe(
                "train", "" if prepared.protocol == "none" else f"--split {prepared.protocol}"
            ),
            "seconds": round(seconds),
        },
        weights=weights,
        licence=LICENCE,
        version=__version__,
        commit=find_commit(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    graph = export(network, calibration.temperature, loaded.pixels[:16])
    attach(graph.graph, subspace, calibration.limit)
    training["residual"] = {"dimensions": len(subspace.basis), "limit": round(calibration.limit, 4)}
    graph = store_in_half(graph)
    # What the temperature and the threshold were chosen on flatters them, too.
    taught = [photo.sha256 for photo, part in zip(loaded.photos, parts, strict=True) if part != "test"]
    rows: list[Sequence[Any]] = []
    # Measured through a file and the class that users have, so that what is measured is what ships; but not under the
    # name of what ships: a stopped run must leave no model that promises what nobody measured.
    unmeasured = settings.out / "unmeasured.onnx"
    try:
        write_bytes(unmeasured, pack(graph, card, taught))
        training["half_precision"] = _compare(network, subspace, calibration, unmeasured, loaded.pixels)
        if judgement is not None:
            metrics = judgement.metrics
        else:
            metrics, rows, interval = _measure_file(unmeasured, prepared, card.threshold, settings.seed)
    finally:
        unmeasured.unlink(missing_ok=True)
    if chosen is not None:
        write_table(settings.out / "predictions.csv", ("path", "part", "label", "predicted", *labels), rows)
        test = metrics["test"]
        promise = asdict(chosen.judged(**test["sure"], photos=test["photos"])) | {
            "interval": interval,
            "measured_on": f"the test part, {test['photos']} photos; chosen on the validation part, {chosen.photos}",
        }
    training = {**card.training, **training}
    finished = replace(card, promise=promise, metrics=metrics, training=training)
    write_bytes(settings.out / "model.onnx", pack(graph, finished, taught))
    write_bytes(settings.out / "metrics.json", to_json(metrics))
    return metrics


def _compare(
    network: Classifying,
    subspace: Subspace,
    calibration: Calibration,
    model: Path,
    pixels: npt.NDArray[np.uint8],
) -> dict[str, float | int]:
    """Return what the file's float16 weights change, on photos spread over the data."""
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.training.fit import embed

    chosen = pixels[:: max(1, len(pixels) // _COMPARED)]
    embeddings = embed(network, chosen)
    whole = calibration.apply(network.judge(embeddings), subspace.measure(embeddings))
    classifier = Classifier.load(model)
    stored = np.concatenate(
        [classifier.compute_probabilities(chosen[i : i + _BATCH]) for i in range(0, len(chosen), _BATCH)]
    )
    return {
        "photos": len(chosen),
        "answers_changed": int((whole.argmax(1) != stored.argmax(1)).sum()),
        "largest_difference": round(float(np.abs(whole - stored).max()), 5),
    }


def _measure_file(
    model: Path, prepared: _Prepared, threshold: float, seed: int
) -> tuple[dict[str, Any], list[Sequence[Any]], list[float] | None]:
    """Return the model file's figures by part, the rows of ``predictions.csv``, and the interval of the promise.

    The interval is of the share of the test part's sure answers that are right, ``None`` where none is sure.
    """
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.evaluation.metrics import measure, share_interval

    classifier = Classifier.load(model)
    labels = prepared.loaded.labels
    metrics: dict[str, Any] = {}
    rows: list[Sequence[Any]] = []
    interval = None
    for part in ("validation", "test"):
        pixels, truth = prepared.of(part)
        batches = [classifier.compute_probabilities(pixels[i : i + _BATCH]) for i in range(0, len(pixels), _BATCH)]
        probabilities = np.concatenate(batches)
        photos = [photo for photo, where in zip(prepared.loaded.photos, prepared.parts, strict=True) if where == part]
        senders = [photo.sender or photo.path for photo in photos]
        groups = senders if prepared.protocol == "sender" else None
        metrics[part] = {
            "protocol": f"{prepared.split}; {part} part, seed {seed}",
            **measure(truth, probabilities, labels, threshold=threshold, groups=groups),
        }
        sure = probabilities.max(1) >= threshold
        if part == "test" and sure.any():
            interval = share_interval((probabilities.argmax(1) == truth)[sure], np.array(senders)[sure].tolist())
        for photo, row in zip(photos, probabilities, strict=True):
            rows.append((photo.path, part, photo.label, labels[int(row.argmax())], *(f"{p:.6f}" for p in row)))
    return metrics, rows, interval


def _split(selection: Selection, settings: Settings) -> tuple[SplitChoice | Literal["none"], npt.NDArray[np.str_]]:
    photos = selection.manifest.kept
    if settings.crossvals:
        return "none", np.full(len(photos), "train")
    if settings.split is None:
        require_whole_parts(settings.data, photos)
    given = [photo.part for photo in photos]
    choice = settings.split or ("given" if all(given) else "random")
    if choice == "given":
        if not all(given):
            raise RunError(
                f"{settings.data}: does not come in train, validation and test parts; choose another --split"
            )
        return choice, np.array(given)
    labels, senders = [photo.label or "" for photo in photos], [photo.sender for photo in photos]
    return choice, split(labels, senders, choice, seed=settings.seed, used=selection.labels)
