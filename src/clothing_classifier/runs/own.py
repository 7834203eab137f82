"""A person's own classes, in minutes: a new head on the features of a model that is there already.

``clothing train --data DIR --out RUN`` runs it, with a folder of photos for each class. The base model sees each photo
and its mirror image once; all that is learned is a linear layer on its embeddings, which is solved for. It needs
neither torch nor a GPU. What it leaves behind:

=================== ====================================================================================
``config.json``     everything that decides the result: base model, split, seed, data
``manifest.csv``    the photos as they were checked, with what was left out and why
``metrics.json``    the figures, on photos that the head which judged them did not learn from
``predictions.csv`` the calibrated probabilities of these photos
``model.onnx``      the model file
=================== ====================================================================================

Where the data have train, validation and test folders, the head learns from the first, is calibrated on the second
and judged on the third. With only one of the latter two, that one judges, and the first calibrates in folds. Otherwise
all photos judge, calibrate and teach: in folds first, each calibrated by the others, which gives the figures; and then
the head that is kept learns from all of them.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from clothing_classifier import __version__
from clothing_classifier.card import ModelCard, ModelFile, mark, read_model
from clothing_classifier.classifier import BATCH, Classifier
from clothing_classifier.dataset import Manifest, check_dataset
from clothing_classifier.dataset.editions import is_published
from clothing_classifier.dataset.labels import read_labels
from clothing_classifier.machine import available_cores
from clothing_classifier.runs.folder import (
    Reporter,
    RunError,
    Silent,
    claim,
    find_commit,
    require_apart,
    require_place,
    to_json,
    write_bytes,
    write_table,
)
from clothing_classifier.runs.photos import SplitChoice, require_whole_parts
from clothing_classifier.training.splits import PARTS, assign_folds

if TYPE_CHECKING:
    from clothing_classifier.training.calibration import Calibration, Promise
    from clothing_classifier.training.head import Head
    from clothing_classifier.training.subspace import Subspace

APPROACH: Final = "own-classes"
"""What the card calls this way of training."""

FOLDS: Final = 5
FEWEST: Final = 3
"""Photos of a class without which nothing can be said about it."""

SHOWN: Final = 60
"""Sure answers, of near copies or of one sender's photos one, without which nothing is promised. In a simulation of two
overlapping classes, 7 of 36 promises of 97 % from 30 photos a class were worth less than 95 %; of 52 from 60 or 120,
none was."""

CALIBRATING: Final = 100
"""Photos of a validation part without which temperature and threshold come from the train part, in folds."""

_ATTEMPTS: Final = 10
"""Seeds that photos are divided by until no class is in one fold alone: the head that judges it would not know it."""

SPARED: Final = 0.05
"""Share of the photos that may go without an answer so that strangers do too."""

ALIKE: Final = 0.97
"""Cosine of two photos' standardised embeddings from which they count as near copies.

With the model that ships, of 4,490 photos of the Clothing dataset the two pairs above show one thing twice, as does one
just below; different shoes on one floor are at 0.963. Between 80 photos and the same saved again at three quarters of
their side the least was 0.991; lit by 15 % more, 78 of 80 are above 0.97, the others at 0.948 and 0.965. Few photos of
two clear-cut classes are all closer to each other, as their standard deviation is mostly the classes' difference."""

_CHUNK: Final = 256
"""Photos that are in memory at once, and whose embeddings are kept together."""

_PROTOCOLS: Final[Mapping[SplitChoice, str]] = {
    "random": "{folds} folds, stratified by class at random, near copies in one fold",
    "sender": "{folds} folds, stratified by class, no sender in two folds",
    "given": "the data's own parts",
}

Embeddings = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """What a person chooses for a model of classes of their own.

    Attributes:
        data: a folder with a folder of photos per class, any edition of the dataset, or a table of labels.
        out: the run's folder; made if it is not there.
        base: the model file whose features are used; ``None`` for the one that ships.
        split: how photos are divided; ``None`` takes the data's own parts where there are some, keeps senders apart
            where they are known, and otherwise leaves it to chance.
        seed: what all random numbers come from.
        photos: where the paths in a table start from, see `read_labels`.
    """

    data: Path
    out: Path
    base: Path | None = None
    split: SplitChoice | None = None
    seed: int = 0
    photos: Path | None = None

    def describe(self, protocol: SplitChoice) -> str:
        """Return the command that makes the run again; paths are shortened to their last part, machines differ."""
        words = ["clothing", "train", "--data", self.data.resolve().name, "--out", self.out.resolve().name]
        if self.photos is not None:
            words += ["--photos", self.photos.resolve().name]
        if self.base is not None:
            words += ["--base", self.base.name]
        return shlex.join([*words, "--split", protocol, "--seed", str(self.seed)])


def train_own(settings: OwnSettings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Make, calibrate and measure a model of a person's own classes.

    The embeddings are kept on disk, so that the same command again takes seconds, and gives the same.

    Args:
        settings: what a person chose.
        reporter: what is told of the progress; nothing by default.

    Returns:
        The content of ``metrics.json``: the figures by part of the data, ``folds`` where it has none of its own.

    Raises:
        RunError: the folder holds another run, the data do not have the split that was asked for, or a class has too
            few photos.
        DatasetError, SplitError, PhotoError, ModelError, GraftError: as their rooms say.
    """
    from clothing_classifier.training.threads import limit_threads

    reporter = reporter or Silent()
    find_commit()  # before anybody commits beside the run
    started = time.monotonic()
    base = read_model(settings.base)
    classifier = Classifier(base)
    size = _measure_base(base, classifier, settings.seed)

    reporter.stage("Checking the photos")
    require_place(settings.out)
    findings = check_dataset(read_labels(settings.data, settings.photos), progress=reporter.progress)
    require_apart(settings.out, findings.manifest)
    findings.require_classes()
    manifest = findings.manifest
    protocol = _choose_protocol(settings, manifest)
    _require_photos(settings.data, manifest, protocol)
    origin = _describe_base(base)
    config = {
        "kind": "own classes",
        "base": {"name": origin["source"], "sha256": origin["sha256"]},
        "labels": list(manifest.classes),
        "split": protocol,
        "seed": settings.seed,
        "data": {"digest": manifest.digest, "edition": manifest.edition},
    }
    claim(settings.out, config)
    manifest.write(settings.out / "manifest.csv")

    reporter.stage("Looking at the photos")
    views = _embed(classifier, str(origin["sha256"]), size, manifest, reporter)
    reporter.stage("Learning and measuring")
    limit_threads()
    photos = _Photos.of(manifest, views, protocol)
    if protocol == "given":
        learned = _learn_given(photos, settings, reporter)
    else:
        learned = _learn_folds(photos, settings, protocol, reporter)
    promise = learned.promise

    data = settings.data.resolve()
    split = _describe_split(photos, protocol, learned.folds)
    note = f"{split}; seed {settings.seed}{_warn(base, origin, manifest)}"
    metrics = {part: {"protocol": note, **figures} for part, figures in learned.metrics.items()}
    counts = Counter(photo.label for photo in manifest.kept)
    parts = Counter(photo.part for photo in manifest.kept)
    card = ModelCard(
        name=(data.stem if data.is_file() else data.name) or APPROACH,
        labels=manifest.classes,
        resizing=base.card.resizing,
        threshold=promise.threshold,
        temperature=learned.calibration.temperature,
        promise={**asdict(promise), "interval": learned.interval, "measured_on": learned.measured_on},
        metrics={part: _shorten(figures) for part, figures in metrics.items()},
        data={
            "edition": manifest.edition,
            "digest": manifest.digest,
            "photos": len(manifest.kept),
            "classes": {label: counts[label] for label in manifest.classes},
            "left_out": len(manifest.photos) - len(manifest.kept),
            "passed_over": len(findings.listing.ignored),
            "unchecked_labels": findings.listing.guessed,
            "near_copies": photos.copies,
            "all_alike": list(photos.all_alike),
            "one_sender": list(photos.one_sender),
            **(
                {
                    "parts": {part: parts[part] for part in PARTS if parts[part]},
                    "taught_test_photos": int(photos.taught.sum()),
                    "known_senders_test_photos": int(photos.known.sum()),
                }
                if protocol == "given"
                else {"folds": learned.folds}
            ),
            "split": split,
            "seed": settings.seed,
        },
        training={
            "approach": APPROACH,
            "summary": "a linear head, solved for on the features of another model",
            "strength": learned.head.strength,
            "residual": {
                "dimensions": len(learned.subspace.basis),
                "limit": round(learned.calibration.limit, 4),
            },
            "command": settings.describe(protocol),
            "seconds": round(time.monotonic() - started),
        },
        weights=origin,
        licence=base.card.licence,
        version=__version__,
        commit=find_commit(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    _write(settings, base, classifier, manifest, learned, card)
    write_table(settings.out / "predictions.csv", *learned.table)
    write_bytes(settings.out / "metrics.json", to_json(metrics))
    return metrics


@dataclass(frozen=True, slots=True)
class _Photos:
    """The photos of a run.

    Attributes:
        manifest: of the dataset; the kept photos are the ones.
        views: their embeddings, as they are and mirrored, ``float32 [2, N, D]``.
        truth: class numbers, ``int64 [N]``.
        groups: number of the group of each photo: near copies of each other, and in folds by sender also a sender's
            photos, are in the same one. ``int64 [N]``.
        near: number of the group of near copies of each photo, ``int64 [N]``.
        related: the same, joined where one sender has photos in several: photos of one of these groups are not
            independent. ``int64 [N]``.
        copies: how many photos have a near copy.
        all_alike: the classes whose photos are all near copies of each other; theirs are groups of their own.
        one_sender: the classes whose photos are all of one sender, where folds go by sender; likewise, as otherwise no
            head that judges them would have seen one.
        taught: which photos of the part that judges have near copies among those that teach, ``bool [N]``.
        known: which of them are by senders of photos that teach, ``bool [N]``.
    """

    manifest: Manifest
    views: Embeddings
    truth: Integers
    groups: Integers
    near: Integers
    related: Integers
    copies: int
    all_alike: tuple[str, ...]
    one_sender: tuple[str, ...]
    taught: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, manifest: Manifest, views: Embeddings, protocol: SplitChoice) -> _Photos:
        kept, labels = manifest.kept, manifest.classes
        truth = np.array([labels.index(photo.label or "") for photo in kept], np.int64)
        near = find_copies(views[0])
        groups = near.copy()
        copies = int((np.bincount(groups)[groups] > 1).sum())
        senders = [photo.sender for photo in kept]
        related = _join(near, senders)
        parts = np.array([photo.part or "" for photo in kept])
        judging, teaching = parts == _choose_judges(manifest), parts == "train"
        taught = judging & np.isin(near, near[teaching])
        met = {sender for sender, teaches in zip(senders, teaching, strict=True) if teaches and sender is not None}
        known = judging & np.array([sender in met for sender in senders])
        alike = [number for number in range(len(labels)) if len(np.unique(groups[truth == number])) < FEWEST]
        _set_apart(groups, np.isin(truth, alike))
        lone: list[int] = []
        if protocol == "sender":
            groups = _join(groups, senders)
            lone = [number for number in range(len(labels)) if len(np.unique(groups[truth == number])) == 1]
            _set_apart(groups, np.isin(truth, lone))
        groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        all_alike, one_sender = (tuple(labels[number] for number in numbers) for numbers in (alike, lone))
        return cls(manifest, views, truth, groups, near, related, copies, all_alike, one_sender, taught, known)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.manifest.classes

    def solve(self, chosen: npt.NDArray[np.bool_], seed: int) -> Head:
        from clothing_classifier.training.head import fit_head

        views = [view[chosen] for view in self.views]
        return fit_head(views, self.truth[chosen], self.groups[chosen], len(self.labels), seed=seed)

    def span(self, chosen: npt.NDArray[np.bool_]) -> Subspace:
        from clothing_classifier.training.subspace import fit_subspace

        return fit_subspace(self.views[0][chosen])


@dataclass(frozen=True, slots=True)
class _Learned:
    """A head, what calibrates it, and what it is worth.

    Attributes:
        subspace: of the photos that the head learned from.
        interval: of the share of sure answers that are right, 95 %; ``None`` where none is sure.
        used: which photos the head, the temperature or the threshold come from, ``bool [N]``.
    """

    head: Head
    subspace: Subspace
    calibration: Calibration
    promise: Promise
    interval: list[float] | None
    used: npt.NDArray[np.bool_]
    measured_on: str
    metrics: dict[str, dict[str, Any]]
    table: tuple[Sequence[str], Sequence[Sequence[Any]]]
    folds: int


def _learn_folds(photos: _Photos, settings: OwnSettings, protocol: SplitChoice, reporter: Reporter) -> _Learned:
    from clothing_classifier.evaluation.metrics import measure_folds, score_sure
    from clothing_classifier.training.calibration import calibrate_folds, find_sure, fit_calibration

    truth, labels, kept = photos.truth, photos.labels, photos.manifest.kept
    everything = np.ones(len(truth), bool)
    folds, logits, residuals = _judge_in_folds(photos, everything, settings.seed, reporter)
    probabilities, temperatures = calibrate_folds(logits, residuals, truth, folds, fit_cautiously)
    predicted = probabilities.argmax(1)
    sure = find_sure(probabilities, truth, folds, lambda given, labels, _: make_promise(given, labels).threshold)
    figures = measure_folds(
        truth,
        probabilities,
        labels,
        folds,
        groups=photos.groups if len(np.unique(photos.groups)) < len(truth) else None,
        senders=photos.groups,
        kids=[photo.kids for photo in kept],
        subsets={},
    )
    figures["sure"] = score_sure(sure, predicted == truth)
    promise = make_promise(probabilities, truth)
    figures["temperatures"] = [round(value, 4) for value in temperatures]
    rows = [
        (photo.path, photo.label, photo.sender or "", fold, group, labels[best], *(f"{p:.6f}" for p in row))
        for photo, fold, group, best, row in zip(
            kept, folds.tolist(), photos.near.tolist(), predicted, probabilities, strict=True
        )
    ]
    kept_here, interval = _show(photos, everything, sure, predicted == truth)
    promise = promise.judged(**figures["sure"], photos=len(truth))
    return _Learned(
        head=photos.solve(everything, settings.seed),
        subspace=photos.span(everything),
        calibration=fit_calibration(logits, residuals, truth, fit_cautiously),
        promise=replace(promise, kept=promise.kept and kept_here),
        interval=interval,
        used=everything,
        measured_on=f"{len(truth)} photos, each fold by head, temperature and threshold from the others",
        metrics={"folds": figures},
        table=(("path", "label", "sender", "fold", "group", "predicted", *labels), rows),
        folds=len(temperatures),
    )


def _learn_given(photos: _Photos, settings: OwnSettings, reporter: Reporter) -> _Learned:
    from clothing_classifier.evaluation.metrics import measure
    from clothing_classifier.training.calibration import fit_calibration

    truth, labels, kept = photos.truth, photos.labels, photos.manifest.kept
    parts = np.array([photo.part for photo in kept])
    teaching, judges = parts == "train", _choose_judges(photos.manifest)
    head, subspace = photos.solve(teaching, settings.seed), photos.span(teaching)
    logits, residuals = head.compute_logits(photos.views[0]), subspace.measure(photos.views[0])
    calibrating, folds = parts == "validation", 0
    found, strangeness = logits, residuals
    if judges == "validation" or calibrating.sum() < min(CALIBRATING, teaching.sum()):
        calibrating = teaching
        numbers, found, strangeness = _judge_in_folds(photos, teaching, settings.seed, reporter)
        folds = int(numbers.max()) + 1
    found, strangeness = found[calibrating], strangeness[calibrating]
    calibration = fit_calibration(found, strangeness, truth[calibrating], fit_cautiously)
    promise = make_promise(calibration.apply(found, strangeness), truth[calibrating])
    chosen_on = f"{'train' if folds else 'validation'} part, {int(calibrating.sum())}"
    chosen_on += f", in {folds} folds" if folds else ""
    probabilities = calibration.apply(logits, residuals)
    metrics: dict[str, dict[str, Any]] = {}
    rows: list[Sequence[Any]] = []
    for part in ("validation", "test"):
        chosen = np.flatnonzero(parts == part)
        if not len(chosen):
            continue
        groups = photos.related[chosen]
        metrics[part] = measure(
            truth[chosen],
            probabilities[chosen],
            labels,
            threshold=promise.threshold,
            groups=groups if 1 < len(np.unique(groups)) < len(chosen) else None,
        )
        for index in chosen.tolist():
            row = probabilities[index]
            best = labels[int(row.argmax())]
            taught = "true" if photos.taught[index] else "false"
            told = (kept[index].path, part, kept[index].label, int(photos.near[index]), taught, best)
            rows.append((*told, *(f"{p:.6f}" for p in row)))
    judged = parts == judges
    sure = judged & (probabilities.max(1) >= promise.threshold)
    kept_here, interval = _show(photos, judged, sure, probabilities.argmax(1) == truth)
    promise = promise.judged(**metrics[judges]["sure"], photos=metrics[judges]["photos"])
    return _Learned(
        head=head,
        subspace=subspace,
        calibration=calibration,
        promise=replace(promise, kept=promise.kept and kept_here),
        interval=interval,
        used=teaching | calibrating,
        measured_on=f"the {judges} part, {metrics[judges]['photos']} photos; chosen on the {chosen_on}",
        metrics=metrics,
        table=(("path", "part", "label", "group", "taught", "predicted", *labels), rows),
        folds=0,
    )


def _show(
    photos: _Photos, judged: npt.NDArray[np.bool_], sure: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]
) -> tuple[bool, list[float] | None]:
    """Say whether these photos can show anything of a promise, and the interval of the share that is right."""
    from clothing_classifier.evaluation.metrics import share_interval

    every_class = len(np.unique(photos.truth[judged])) == len(photos.labels)
    known_apart = not photos.all_alike and not photos.one_sender
    enough = len(np.unique(photos.related[sure])) >= SHOWN
    interval = share_interval(right[sure], photos.related[sure]) if sure.any() else None
    return every_class and known_apart and enough, interval


def _describe_split(photos: _Photos, protocol: SplitChoice, folds: int) -> str:
    """Say how the photos are divided, and of which classes that is not true."""
    told = _PROTOCOLS[protocol].format(folds=folds)
    if protocol != "given":
        for labels, why in ((photos.all_alike, "all near copies"), (photos.one_sender, "all of one sender")):
            if labels:
                told += f", but for {', '.join(labels)}: {why}"
    return told


def _choose_judges(manifest: Manifest) -> str:
    """Return the part that judges, where the data come in parts."""
    return "test" if any(photo.part == "test" for photo in manifest.kept) else "validation"


def _judge_in_folds(
    photos: _Photos, among: npt.NDArray[np.bool_], seed: int, reporter: Reporter
) -> tuple[Integers, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Judge each of the photos by a head that learned from the other folds of them.

    Returns:
        The fold of each photo, -1 for the others; logits ``float32 [N, classes]``, of the others 0; and likewise
        residuals ``float32 [N]``, see `training.subspace`.
    """
    folds = np.full(len(photos.truth), -1)
    folds[among] = _assign(photos, among, seed)
    logits, residuals = np.zeros((len(folds), len(photos.labels)), np.float32), np.zeros(len(folds), np.float32)
    for fold in range(int(folds.max()) + 1):
        judged = folds == fold
        teaching, views = among & ~judged, photos.views[0][judged]
        logits[judged] = photos.solve(teaching, seed).compute_logits(views)
        residuals[judged] = photos.span(teaching).measure(views)
        reporter.progress(int((among & (folds <= fold)).sum()), int(among.sum()))
    return folds, logits, residuals


def find_copies(embeddings: Embeddings) -> Integers:
    """Group photos that look the same: saved again, resized, lit a little differently.

    Args:
        embeddings: ``float32 [N, D]``.

    Returns:
        The number of each photo's group, ``int64 [N]``; near copies of near copies are in the same one.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    spread = embeddings.std(0)
    spread[spread < 1e-6] = 1.0
    directions = (embeddings - embeddings.mean(0)) / spread
    directions /= np.linalg.norm(directions, axis=1, keepdims=True).clip(min=1e-6)
    count = len(directions)
    groups = np.arange(count)
    for start in range(0, count, _CHUNK):  # all pairs at once would not fit into memory
        rows, columns = np.nonzero(directions[start : start + _CHUNK] @ directions.T >= ALIKE)
        edges = groups[rows + start], groups[columns]
        links = coo_array((np.ones(len(rows), bool), edges), shape=(count, count))
        groups = connected_components(links, directed=False)[1][groups]
    return groups.astype(np.int64)


def fit_cautiously(logits: npt.NDArray[np.float32], labels: Integers) -> float:
    """Return the temperature for probabilities of few photos.

    Where a few photos all come out right, nothing less than certainty would make them most likely. So of each class one
    photo more is taken to have been mistaken for the class that came second; of many photos that hardly matters. It is
    Laplace's rule of succession for temperatures.

    Args:
        logits: ``float32 [N, classes]`` of photos that the head did not learn from.
        labels: ``int64 [N]``.

    Returns:
        The temperature.
    """
    from clothing_classifier.training.calibration import fit_temperature

    ranks = np.sort(logits, axis=1)
    margins = ranks[:, -1] - ranks[:, -2]
    doubted = []
    for number in np.unique(labels):
        members = np.flatnonzero(labels == number)
        doubted.append(members[np.argsort(margins[members], kind="stable")[len(members) // 2]])
    second = np.argsort(logits[doubted], axis=1, kind="stable")[:, -2]
    return fit_temperature(np.concatenate([logits, logits[doubted]]), np.concatenate([labels, second]))


def make_promise(probabilities: npt.NDArray[np.float64], labels: Integers) -> Promise:
    """Choose the threshold below which the answer is "not sure".

    It is the one that keeps the promise. But where classes are easy to tell apart every threshold keeps it, and then
    anything at all would be named as one of them, a sofa too. So the threshold is raised until one photo in twenty goes
    without an answer, if the promise is still kept then: the usual operating point for telling strangers (Hendrycks and
    Gimpel, 2017, https://arxiv.org/abs/1610.02136).

    Args:
        probabilities: calibrated, ``[N, classes]``, of photos that the head did not learn from.
        labels: ``int64 [N]``.

    Returns:
        The threshold and what it does on these photos; kept only if there are answers enough to show it.
    """
    from clothing_classifier.training.calibration import FEWEST_ANSWERS, choose_threshold

    promise = choose_threshold(probabilities, labels)
    best = probabilities.max(1)
    raised = float(np.floor(np.quantile(best, SPARED) * 1e4) / 1e4)
    sure = best >= raised
    accuracy = float((probabilities.argmax(1) == labels)[sure].mean())
    if promise.kept and raised > promise.threshold and accuracy >= promise.accuracy:
        promise = replace(promise, threshold=raised, measured_accuracy=accuracy, share=float(sure.mean()))
    return replace(promise, kept=promise.kept and round(promise.share * len(labels)) >= FEWEST_ANSWERS)


def _measure_base(base: ModelFile, classifier: Classifier, seed: int) -> int:
    """Return the embedding's size of a base model that can take another head.

    That is found out before the photos are looked at, which may take minutes.
    """
    from clothing_classifier.training.graft import graft

    resizing, random = base.card.resizing, np.random.default_rng(seed)
    pixels = random.integers(0, 256, (2, resizing.height, resizing.width, 3), np.uint8)
    size = classifier.run(pixels).embedding.shape[1]
    graft(base.content, random.normal(0, 0.1, (2, size)).astype(np.float32), np.zeros(2, np.float32), pixels)
    return int(size)


def _choose_protocol(settings: OwnSettings, manifest: Manifest) -> SplitChoice:
    given = all(photo.part for photo in manifest.kept)
    if settings.split is None:
        require_whole_parts(settings.data, manifest.kept)
    if settings.split == "given" and not given:
        raise RunError(f"{settings.data}: does not come in train, validation and test parts; choose another --split")
    if settings.split == "sender" and not manifest.senders_known:
        raise RunError(f"{settings.data}: names no senders; choose another --split")
    return settings.split or ("given" if given else "sender" if manifest.senders_known else "random")


def _require_photos(data: Path, manifest: Manifest, protocol: SplitChoice) -> None:
    """Make sure that there is something to learn of each class, and something to judge by."""
    photos = manifest.kept
    where = "to learn from"
    if protocol == "given":
        for part in ("train", _choose_judges(manifest)):
            if not any(photo.part == part for photo in photos):
                raise RunError(f"{data}: the {part} part has no photos; add some, or choose another --split")
        photos = tuple(photo for photo in photos if photo.part == "train")
        where = "in the train part"
    counts = Counter(photo.label for photo in photos)
    few = [f"{label} ({counts[label]})" for label in manifest.classes if counts[label] < FEWEST]
    if few:
        raise RunError(
            f"{data}: too few photos {where} ({FEWEST} a class at least, better 30): {', '.join(few)}; add photos, or "
            "take these classes away"
        )


def _describe_base(base: ModelFile) -> dict[str, Any]:
    """Return what the card of a model on this base says of its weights."""
    card = base.card
    taught = card.weights.get("data", card.data)
    return {
        "source": f"model: {card.name}",
        "licence": card.licence,
        "sha256": hashlib.sha256(base.content).hexdigest(),
        "created": card.created,
        "data": {key: taught[key] for key in ("edition", "digest", "photos") if key in taught},
        "weights": dict(card.weights.get("weights", card.weights)),
    }


def _warn(base: ModelFile, origin: Mapping[str, Any], manifest: Manifest) -> str:
    """Return what to add to the protocol where the base model learned from these photos, or may have."""
    taught = origin["data"]
    known = base.read_photos() or ()
    if count := sum(mark(photo.sha256) in known for photo in manifest.kept):
        which = "these photos" if count == len(manifest.kept) else f"{count} of these photos"
        return f"; the base model has learned from {which}, so these figures flatter"
    if is_published(taught.get("edition")) and is_published(manifest.edition):
        return "; the base model has learned from the Clothing dataset: if these photos are of it, the figures flatter"
    return ""


def _embed(classifier: Classifier, model: str, size: int, manifest: Manifest, reporter: Reporter) -> Embeddings:
    """Return the photos' embeddings, as they are and mirrored, ``float32 [2, N, D]``."""
    from clothing_classifier.training.features import compute_embeddings

    paths = [manifest.root / photo.path for photo in manifest.kept]
    found = []
    with ThreadPoolExecutor(available_cores()) as threads:
        for start in range(0, len(paths), _CHUNK):
            pixels = np.stack(list(threads.map(classifier.prepare, paths[start : start + _CHUNK])))
            found.append(
                compute_embeddings(lambda given: classifier.run(given).embedding, size, model, pixels, batch=BATCH)
            )
            reporter.progress(min(start + _CHUNK, len(paths)), len(paths))
    return np.concatenate(found, axis=1)


def _set_apart(groups: Integers, chosen: npt.NDArray[np.bool_]) -> None:
    """Make each of the chosen photos a group of its own, in place."""
    groups[chosen] = groups.max() + 1 + np.arange(chosen.sum())


def _join(groups: Integers, senders: Sequence[str | None]) -> Integers:
    """Return the groups, joined where one sender has photos in several."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[str, int] = {}
    own = [
        int(groups.max()) + 1 + (index if name is None else len(senders) + numbers.setdefault(name, len(numbers)))
        for index, name in enumerate(senders)
    ]
    count = max(own) + 1
    links = coo_array((np.ones(len(own), bool), (groups, own)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1][groups], np.int64)


def _assign(photos: _Photos, among: npt.NDArray[np.bool_], seed: int) -> Integers:
    """Give each of the photos its fold: five of them, or as many as the smallest class can fill.

    Where groups stay whole, as many as the largest class and the groups can fill.
    """
    truth, groups = photos.truth[among], photos.groups[among]
    labels = [photos.labels[number] for number in truth]
    names = [str(group) for group in groups]
    grouped = len(set(names)) < len(names)
    # With few folds of whole groups, all photos of a class are more often in one of them.
    counts = np.bincount(truth)
    fewest = min(len(set(names)), int(counts.max())) if grouped else int(counts.min())
    folds = min(FOLDS, max(2, fewest))
    for attempt in range(_ATTEMPTS):
        found = assign_folds(labels, names, "sender" if grouped else "random", folds=folds, seed=seed + attempt)
        if all(len(np.unique(found[truth == number])) > 1 for number in np.unique(truth)):
            # Few large groups may leave a fold without photos.
            return np.unique(found, return_inverse=True)[1].astype(np.int64)
    raise RunError(
        f"{photos.manifest.root}: the photos cannot be divided so that each class is on both sides; add photos of "
        "other senders, or choose another --split"
    )


def _shorten(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures for the card, which people read: without curves, and without what ``metrics.json`` adds."""
    left = ("mean", "std", "folds", "reliability", "coverage", "subsets", "by", "temperatures")
    return {key: value for key, value in figures.items() if key not in left}


def _write(
    settings: OwnSettings,
    base: ModelFile,
    classifier: Classifier,
    manifest: Manifest,
    learned: _Learned,
    card: ModelCard,
) -> None:
    """Write the model file, and make sure that it can be used."""
    from clothing_classifier.training.graft import graft
    from clothing_classifier.training.packing import pack
    from clothing_classifier.training.subspace import attach

    weight, bias = learned.head.fold()
    pixels = np.stack([classifier.prepare(manifest.root / photo.path) for photo in manifest.kept[:4]])
    scale = np.float32(1 / learned.calibration.temperature)
    graph = graft(base.content, weight * scale, bias * scale, pixels)
    attach(graph.graph, learned.subspace, learned.calibration.limit)
    taught = [photo.sha256 for photo, used in zip(manifest.kept, learned.used, strict=True) if used]
    write_bytes(settings.out / "model.onnx", pack(graph, card, [*taught, *(base.read_photos() or ())]))
    Classifier.load(settings.out / "model.onnx").run(pixels)
