"""Probabilities that mean what they say, and the threshold below which an answer is "not sure"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clothing_classifier.training.subspace import Residuals, choose_limit, doubt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PROMISE = 0.97
"""Share of the answers above the threshold that shall be right."""

_AIMS = (0.97, 0.9725, 0.975, 0.9775, 0.98, 0.985, 0.99)
"""Shares of right answers that a threshold is chosen for, from the promise upwards."""

FEWEST_ANSWERS = 30
"""Answers without which a threshold proves nothing."""


def fit_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Return the temperature that makes ``softmax(logits / temperature)`` most likely to give the labels.

    Guo et al., 2017, "On calibration of modern neural networks" (https://arxiv.org/abs/1706.04599).

    Args:
        logits: ``float32 [N, classes]`` of photos that the network did not learn from.
        labels: ``int64 [N]``.

    Returns:
        A number from 0.05 to 20; 1 where there are no photos to fit it to.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        return 1.0
    scores = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        scaled -= scaled.max(1, keepdims=True)
        chosen = scaled[np.arange(len(labels)), labels]
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - chosen))

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def soften(logits: npt.NDArray[np.floating[Any]], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the probabilities ``softmax(logits / temperature)``, ``float64 [N, classes]``."""
    scaled = logits.astype(np.float64) / temperature
    likelihood = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(likelihood / likelihood.sum(1, keepdims=True), np.float64)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What makes probabilities of logits.

    Attributes:
        limit: the residual beyond which answers are doubted, see `subspace`.
        temperature: what all logits are divided by.
    """

    limit: float
    temperature: float

    def apply(self, logits: npt.NDArray[np.float32], residuals: Residuals) -> Floats:
        """Return the probabilities, ``float64 [N, classes]``, for logits and residuals ``float32 [N]``."""
        return soften(doubt(logits, residuals, self.limit), self.temperature)


def fit_calibration(
    logits: npt.NDArray[np.float32],
    residuals: Residuals,
    labels: Integers,
    fit: Callable[[npt.NDArray[np.float32], Integers], float] = fit_temperature,
) -> Calibration:
    """Choose the limit, and then the temperature, on photos that the network did not learn from.

    Args:
        logits: ``float32 [N, classes]``.
        residuals: ``float32 [N]``.
        labels: ``int64 [N]``.
        fit: the temperature for logits and labels.
    """
    limit = choose_limit(residuals)
    return Calibration(limit, fit(doubt(logits, residuals, limit), labels))


def calibrate_folds(
    logits: npt.NDArray[np.float32],
    residuals: Residuals,
    labels: Integers,
    folds: Integers,
    fit: Callable[[npt.NDArray[np.float32], Integers], float] = fit_temperature,
) -> tuple[Floats, list[float]]:
    """Calibrate each fold by the others.

    Args:
        logits: ``float32 [N, classes]``, of each photo by a network that did not learn from its fold.
        residuals: ``float32 [N]``, likewise.
        labels: ``int64 [N]``.
        folds: the fold of each photo, counted from 0, ``int64 [N]``.
        fit: as `fit_calibration` takes it.

    Returns:
        Probabilities, ``float64 [N, classes]``, and each fold's temperature.
    """
    probabilities = np.empty(logits.shape)
    temperatures = []
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        calibration = fit_calibration(logits[~own], residuals[~own], labels[~own], fit)
        temperatures.append(calibration.temperature)
        probabilities[own] = calibration.apply(logits[own], residuals[own])
    return probabilities, temperatures


@dataclass(frozen=True, slots=True)
class Promise:
    """What a threshold was chosen for.

    Attributes:
        threshold: an answer whose probability is below it is "not sure".
        accuracy: the share of answers at or above it that shall be right.
        kept: whether the measured photos allow it; if not, the threshold is the one that comes nearest.
        measured_accuracy: the share of them that was right, on the photos it was chosen on or as `judged` on others.
        share: the share of those photos that get an answer.
        photos: how many photos it was chosen on.
    """

    threshold: float
    accuracy: float
    kept: bool
    measured_accuracy: float
    share: float
    photos: int

    def judged(self, share: float, accuracy: float | None, photos: int) -> Promise:
        """Return what the threshold does on other photos than those it was chosen on: only that can show it kept.

        Args:
            share: of those photos that get an answer.
            accuracy: the share of these answers that is right, ``None`` where there are none.
            photos: how many they are; where fewer than 30 get an answer, nothing is shown.
        """
        right = accuracy or 0.0
        shown = round(share * photos) >= FEWEST_ANSWERS and right >= self.accuracy
        return replace(self, share=share, measured_accuracy=right, kept=self.kept and shown)


def choose_threshold(
    probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64], accuracy: float = PROMISE
) -> Promise:
    """Choose the lowest threshold above which the answers are right as often as promised.

    Selective classification (Geifman and El-Yaniv, 2017, https://arxiv.org/abs/1705.08500). Thresholds that leave
    fewer than 30 answers are not considered, because so few prove nothing; of fewer photos than that, all are answered,
    and the promise is not kept.

    Args:
        probabilities: calibrated, ``[N, classes]``, of photos that the network did not learn from.
        labels: ``int64 [N]``.
        accuracy: the share of answers that shall be right.

    Returns:
        The threshold and what it does on these photos.
    """
    count = len(labels)
    if count == 0:
        return Promise(0.5, accuracy, False, 0.0, 0.0, 0)
    # As coarse as the card shows thresholds, rounded down: what such a threshold lets in stands or falls together.
    best = np.floor(probabilities.max(1).astype(np.float64) * 1e4) / 1e4
    order = np.argsort(-best, kind="stable")
    answers = np.arange(1, count + 1)
    right = np.cumsum(probabilities.argmax(1)[order] == labels[order]) / answers
    ends = np.append(best[order][:-1] > best[order][1:], True)
    enough = ends & (answers >= min(FEWEST_ANSWERS, count))
    keeping = np.flatnonzero(enough & (right >= accuracy))
    candidates = np.flatnonzero(enough)
    last = int(keeping[-1]) if len(keeping) else int(candidates[np.argmax(right[candidates])])
    kept = bool(len(keeping)) and last + 1 >= FEWEST_ANSWERS
    return Promise(float(best[order][last]), accuracy, kept, float(right[last]), (last + 1) / count, count)


def promise_across(probabilities: Floats, truth: Integers, folds: Integers) -> Promise:
    """Choose the threshold on all photos, as strictly as it takes for the promise to hold across folds.

    A threshold that just keeps the promise on the photos that it was chosen on breaks it on others as often as not. So
    each fold is measured with a threshold that was chosen on the other folds, and the aim is raised above the promise
    until all folds together keep it. What is told of the threshold is measured once more: each fold with aim and
    threshold from the others, so that nothing was chosen on the photos that judge it.

    Args:
        probabilities: out of fold, ``[N, classes]``.
        truth: class numbers, ``int64 [N]``.
        folds: the fold in which each photo was held out, ``int64 [N]``.

    Returns:
        The threshold, and the share and accuracy across folds; kept only if the promise was kept there.
    """
    sure = find_promised(probabilities, truth, folds)
    accuracy = float((probabilities.argmax(1) == truth)[sure].mean()) if sure.any() else 0.0
    chosen = _choose_across(probabilities, truth, folds)
    kept = chosen.kept and accuracy >= PROMISE and int(sure.sum()) >= FEWEST_ANSWERS
    return Promise(chosen.threshold, PROMISE, kept, round(accuracy, 4), round(float(sure.mean()), 4), len(truth))


def find_promised(probabilities: Floats, truth: Integers, folds: Integers) -> npt.NDArray[np.bool_]:
    """Return which answers `promise_across` tells of, ``bool [N]``; arguments are its."""
    return find_sure(probabilities, truth, folds, lambda *others: _choose_across(*others).threshold)


def _choose_across(probabilities: Floats, truth: Integers, folds: Integers) -> Promise:
    return choose_threshold(probabilities, truth, _choose_aim(probabilities, truth, folds))


def find_sure(
    probabilities: Floats, truth: Integers, folds: Integers, choose: Callable[[Floats, Integers, Integers], float]
) -> npt.NDArray[np.bool_]:
    """Return which answers reach a threshold that was chosen on the other folds.

    Args:
        probabilities: out of fold, ``[N, classes]``.
        truth: class numbers, ``int64 [N]``.
        folds: the fold in which each photo was held out, ``int64 [N]``.
        choose: the threshold for such photos.

    Returns:
        ``bool [N]``.
    """
    sure = np.zeros(len(truth), bool)
    for fold in np.unique(folds):
        own = folds == fold
        sure[own] = probabilities[own].max(1) >= choose(probabilities[~own], truth[~own], folds[~own])
    return sure


def _choose_aim(probabilities: Floats, truth: Integers, folds: Integers) -> float:
    """Return the lowest aim for which the folds keep the promise by thresholds chosen on the others; or the highest."""
    right = probabilities.argmax(1) == truth
    if len(np.unique(folds)) < 2:
        return _AIMS[0]
    for aim in _AIMS:

        def choose(probabilities: Floats, truth: Integers, folds: Integers, aim: float = aim) -> float:
            return choose_threshold(probabilities, truth, aim).threshold

        sure = find_sure(probabilities, truth, folds, choose)
        if right[sure].mean() >= PROMISE:
            break
    return aim
