"""Figures of a classifier on photos it did not learn from. F1 is the primary metric, accuracy the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_BINS: Final = 15
_RESAMPLES: Final = 1000
_TAIL: Final = 0.025

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
Counts = npt.NDArray[np.number[Any]]


def confusion(truth: Integers, predicted: Integers, classes: int) -> Integers:
    """Return the confusion matrix ``int64 [classes, classes]``: rows are true classes, columns predicted ones."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def score(matrix: Integers) -> dict[str, float]:
    """Return accuracy, weighted F1 and macro F1 of confusion matrices.

    Weighted F1 is the mean of the classes' F1 by their share of the photos, the published comparison's figure; macro
    F1 is the plain mean over the classes that have photos, so that the rare ones count as much.

    Args:
        matrix: ``int64 [classes, classes]``, rows true, columns predicted.

    Returns:
        ``accuracy``, ``weighted_f1`` and ``macro_f1``, each 0 to 1.

    >>> score(np.array([[3, 1], [0, 4]]))
    {'accuracy': 0.875, 'weighted_f1': 0.873, 'macro_f1': 0.873}
    """
    return _score(np.diag(matrix), matrix.sum(1), matrix.sum(0))


def _score(hits: Counts, photos: Counts, answers: Counts) -> dict[str, float]:
    """Return the scores of each class's right answers, photos, and answers of any kind."""
    f1 = _f1(hits, photos, answers)
    return {
        "accuracy": _rounded(hits.sum() / max(1, photos.sum())),
        "weighted_f1": _rounded((f1 * photos).sum() / max(1, photos.sum())),
        "macro_f1": _rounded(f1[photos > 0].mean()) if photos.any() else 0.0,
    }


def _f1(hits: Counts, photos: Counts, answers: Counts) -> npt.NDArray[np.float64]:
    return np.asarray(2 * hits / np.maximum(1, photos + answers), np.float64)


def expected_calibration_error(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """Return the mean gap between confidence and accuracy, over 15 bins of equal width.

    Naeini et al., 2015; Guo et al., 2017 (https://arxiv.org/abs/1706.04599).

    Args:
        confidence: the probability of each answer, ``[N]`` with N ≥ 1.
        right: whether it is right, ``bool [N]``.

    Returns:
        0 (calibrated) to 1.
    """
    confidence = confidence.astype(np.float64)
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, right - confidence, _BINS)
    return _rounded(np.abs(gaps).sum() / len(right))


def measure(
    truth: Integers,
    probabilities: Floats,
    labels: Sequence[str],
    *,
    threshold: float,
    groups: Sequence[str] | Integers | None = None,
) -> dict[str, Any]:
    """Return all figures of one model on one set of photos.

    Args:
        truth: class numbers, ``int64 [N]``.
        probabilities: ``[N, classes]``.
        labels: the classes' names, in the order of the probabilities.
        threshold: as `measure_answers` takes it.
        groups: likewise.

    Returns:
        What `measure_answers` does.

    Raises:
        ValueError: likewise.
    """
    answers, confidence = probabilities.argmax(1), probabilities.max(1)
    return measure_answers(truth, answers, confidence, labels, threshold=threshold, groups=groups)


def measure_answers(
    truth: Integers,
    predicted: Integers,
    confidence: Floats,
    labels: Sequence[str],
    *,
    threshold: float,
    groups: Sequence[str] | Integers | None = None,
) -> dict[str, Any]:
    """Return all figures of one model on one set of photos, by its answers alone.

    Args:
        truth: class numbers, ``int64 [N]``.
        predicted: the most probable class's number, ``int64 [N]``.
        confidence: that class's probability, ``[N]``.
        labels: the classes' names, by their numbers.
        threshold: answers below it are "not sure".
        groups: who sent each photo; the intervals then resample senders instead of photos, because photos of one
            sender are not independent.

    Returns:
        ``photos``, ``accuracy``, ``weighted_f1``, ``macro_f1``, ``intervals`` (95 %, bootstrap),
        ``expected_calibration_error``, ``sure`` (share answered, accuracy among them), ``per_class`` and
        ``confusion``; shares from 0 to 1, four decimals.

    Raises:
        ValueError: there are no photos, or the arrays' lengths differ.
    """
    if len(truth) == 0:
        raise ValueError("there are no photos to measure on")
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} labels do not fit {len(predicted)} predictions")
    matrix = confusion(truth, predicted, len(labels))
    sure, right = confidence >= threshold, predicted == truth
    f1 = _f1(np.diag(matrix), matrix.sum(1), matrix.sum(0))
    return {
        "photos": len(truth),
        **score(matrix),
        "intervals": _intervals(truth, predicted, len(labels), groups),
        "expected_calibration_error": expected_calibration_error(confidence, right),
        "sure": score_sure(sure, right),
        "per_class": {
            label: {
                "precision": _rounded(matrix[i, i] / max(1, matrix[:, i].sum())),
                "recall": _rounded(matrix[i, i] / max(1, matrix[i].sum())),
                "f1": _rounded(f1[i]),
                "photos": int(matrix[i].sum()),
            }
            for i, label in enumerate(labels)
        },
        "confusion": matrix.tolist(),
    }


def score_sure(sure: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> dict[str, float | None]:
    """Return the ``share`` of photos that get an answer, and the ``accuracy`` of these answers, if there are any."""
    return {"share": _rounded(sure.mean()), "accuracy": _rounded(right[sure].mean()) if sure.any() else None}


def compare_answers(
    truth: Integers,
    first: Integers,
    second: Integers,
    classes: int,
    *,
    groups: Sequence[str] | Integers | None = None,
) -> dict[str, dict[str, Any]]:
    """Return how much better one model's answers are than another's to the same photos.

    The bootstrap is paired: both are scored on each draw, so that what makes a draw hard for both cancels out (Efron
    and Tibshirani, 1993, chapter 8).

    Args:
        truth: class numbers, ``int64 [N]``.
        first: what the one says, ``int64 [N]``.
        second: what the other says, ``int64 [N]``.
        classes: how many there are.
        groups: as `measure_answers` takes it.

    Returns:
        By ``accuracy``, ``weighted_f1`` and ``macro_f1``: the ``difference``, first less second, and its 95 %
        ``interval``.

    Raises:
        ValueError: there are no photos, or the arrays' lengths differ.
    """
    if not len(truth) == len(first) == len(second) or len(truth) == 0:
        raise ValueError(f"{len(truth)} labels do not fit {len(first)} and {len(second)} predictions")
    scores = [score(confusion(truth, predicted, classes)) for predicted in (first, second)]
    drawn = [resample(truth, predicted, classes, groups) for predicted in (first, second)]
    return {
        name: {
            "difference": _rounded(scores[0][name] - scores[1][name]),
            "interval": [_rounded(end) for end in np.quantile(drawn[0][name] - drawn[1][name], (_TAIL, 1 - _TAIL))],
        }
        for name in scores[0]
    }


def share_interval(right: npt.NDArray[np.bool_], groups: Sequence[str] | Integers | None = None) -> list[float]:
    """Return the 95 % interval of the share of answers that are right, where these are few or all right, too.

    Clopper and Pearson's (1934, https://doi.org/10.1093/biomet/26.4.404): never narrower than it says, where the
    bootstrap's has no width if all are right. Where photos come in groups, they count as so many fewer as the groups'
    shares scatter more than chance would have it, by Kish's design effect, never below 1; and as fewer again as few
    groups tell little of how much they scatter (both: Korn and Graubard, 1998).

    Args:
        right: of each answer, ``bool [N]``.
        groups: who sent each photo.

    Returns:
        Lower and upper end, 0 to 1.

    Raises:
        ValueError: there are no answers.

    >>> share_interval(np.array([True] * 97 + [False] * 3))
    [0.9148, 0.9938]
    """
    count: float = len(right)
    if count == 0:
        raise ValueError("there are no answers to measure")
    share = float(right.mean())
    if groups is not None:
        deviations = np.bincount(np.unique(np.asarray(groups), return_inverse=True)[1], right - share)
        members = len(deviations)
        if members < count:
            of_groups, of_photos = max(1, members - 1), len(right) - 1
            if 0 < share < 1:
                variance = (deviations**2).sum() / count**2 * members / of_groups
                count /= max(1.0, variance / (share * (1 - share) / of_photos))
            count *= (_t_quantile(of_photos) / _t_quantile(of_groups)) ** 2
    hits, misses = share * count, (1 - share) * count
    low = _beta_quantile(_TAIL, hits, misses + 1) if hits else 0.0
    high = _beta_quantile(1 - _TAIL, hits + 1, misses) if misses else 1.0
    return [_rounded(low), _rounded(high)]


def _t_quantile(freedom: int) -> float:
    """Return the quantile of Student's t, of which `_TAIL` is above; v / (v + t²) has a beta distribution."""
    if freedom > 100:  # where the table of the beta distribution is too coarse, and the first terms are enough
        z = NormalDist().inv_cdf(1 - _TAIL)
        return z + (z**3 + z) / (4 * freedom)
    x = _beta_quantile(2 * _TAIL, freedom / 2, 0.5)
    return float(np.sqrt(freedom * (1 - x) / x))


def _beta_quantile(q: float, a: float, b: float) -> float:
    """Return the quantile of the beta distribution, to five decimals: SciPy is not needed to use a model."""
    # By the angle whose squared sine it is: at 0 and 1, where the density may have no end, that has one.
    edges = np.linspace(0, np.pi / 2, 200_001)
    middles = (edges[1:] + edges[:-1]) / 2
    density = (2 * a - 1) * np.log(np.sin(middles)) + (2 * b - 1) * np.log(np.cos(middles))
    shares = np.cumsum(np.exp(density - density.max()))
    return float(np.sin(np.interp(q, np.concatenate([[0.0], shares / shares[-1]]), edges)) ** 2)


def reliability(probabilities: Floats, truth: Integers) -> list[dict[str, float]]:
    """Return the reliability diagram's 15 bins of equal width; those without photos are left out.

    Args:
        probabilities: ``[N, classes]``.
        truth: ``int64 [N]``.

    Returns:
        Of each bin ``low`` and ``high`` (of the confidence), ``photos``, mean ``confidence`` and ``accuracy``.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == truth
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    return [
        {
            "low": _rounded(number / _BINS),
            "high": _rounded((number + 1) / _BINS),
            "photos": int((bins == number).sum()),
            "confidence": _rounded(confidence[bins == number].mean()),
            "accuracy": _rounded(right[bins == number].mean()),
        }
        for number in np.unique(bins).tolist()
    ]


def risk_coverage(probabilities: Floats, truth: Integers) -> list[dict[str, float]]:
    """Return how often a model errs when it answers only where it is most confident.

    Geifman and El-Yaniv, 2017 (https://arxiv.org/abs/1705.08500).

    Args:
        probabilities: ``[N, classes]``.
        truth: ``int64 [N]``.

    Returns:
        At each hundredth of coverage: ``coverage`` (share answered), ``risk`` (share wrong among these) and
        ``threshold`` (the least confidence among these).
    """
    confidence = probabilities.max(1).astype(np.float64)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(probabilities.argmax(1)[order] != truth[order])
    answered = sorted({max(1, round(len(truth) * share / 100)) for share in range(1, 101)})
    return [
        {
            "coverage": _rounded(count / len(truth)),
            "risk": _rounded(wrong[count - 1] / count),
            "threshold": _rounded(confidence[order][count - 1]),
        }
        for count in answered
    ]


def measure_folds(
    truth: Integers,
    probabilities: Floats,
    labels: Sequence[str],
    folds: Integers,
    *,
    groups: Integers | None,
    senders: Integers,
    kids: Sequence[bool | None],
    subsets: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return all figures of one approach's out-of-fold predictions.

    Args:
        truth: class numbers, ``int64 [N]``.
        probabilities: out of fold, ``[N, classes]``.
        labels: the classes' names.
        folds: the fold in which each photo was held out, ``int64 [N]``.
        groups: number of each photo's sender where intervals shall resample senders, otherwise ``None``.
        senders: number of each photo's sender.
        kids: whether each photo shows children's clothes.
        subsets: names of groups of classes on whose photos the model is also scored as if it knew no others.

    Returns:
        What `measure` gives of all photos, and ``mean``, ``std`` and ``folds`` (each fold's scores),
        ``reliability``, ``coverage``, ``subsets`` and ``by`` (kids or adults, the size of the sender's share).
    """
    predicted = probabilities.argmax(1)
    named = None if groups is None else [str(group) for group in groups.tolist()]
    every = [_score_of(truth, predicted, len(labels), folds == fold) for fold in range(int(folds.max()) + 1)]
    sizes = np.bincount(senders)[senders]
    whose = np.array(["unknown" if child is None else "kids" if child else "adults" for child in kids])
    by: dict[str, dict[str, Any]] = {
        "kids": {name: _score_of(truth, predicted, len(labels), whose == name) for name in np.unique(whose).tolist()},
        "sender_size": {
            f"{low}-{high}" if high else f"{low} or more": _score_of(
                truth, predicted, len(labels), (sizes >= low) & (sizes <= (high or sizes.max()))
            )
            for low, high in ((1, 4), (5, 19), (20, 99), (100, None))
        },
    }
    among: dict[str, Any] = {}
    for name, members in subsets.items():
        inside = [labels.index(label) for label in members]
        chosen = np.isin(truth, inside)
        restricted = np.full_like(probabilities, -1.0)
        restricted[:, inside] = probabilities[:, inside]
        among[name] = {
            **_score_of(truth, restricted.argmax(1), len(labels), chosen),
            "note": f"the photos of {len(inside)} classes, scored as if there were no others",
        }
        among[f"{name}_open"] = {
            **_score_of(truth, predicted, len(labels), chosen),
            "note": f"the photos of {len(inside)} classes, all {len(labels)} classes possible",
        }
    figures = measure(truth, probabilities, labels, threshold=0.0, groups=named)
    del figures["sure"]  # no threshold was promised: the whole curve says more
    names = ("accuracy", "weighted_f1", "macro_f1")
    return {
        **figures,
        "mean": {name: _rounded(np.mean([row[name] for row in every])) for name in names},
        "std": {name: _rounded(np.std([row[name] for row in every], ddof=1)) for name in names},
        "folds": [{"fold": fold, **row} for fold, row in enumerate(every)],
        "reliability": reliability(probabilities, truth),
        "coverage": risk_coverage(probabilities, truth),
        "subsets": among,
        "by": {name: {key: row for key, row in rows.items() if row["photos"]} for name, rows in by.items()},
    }


def _score_of(truth: Integers, predicted: Integers, classes: int, chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
    matrix = confusion(truth[chosen], predicted[chosen], classes)
    return {"photos": int(chosen.sum()), **score(matrix)}


def _intervals(
    truth: Integers, predicted: Integers, classes: int, groups: Sequence[str] | Integers | None
) -> dict[str, list[float]]:
    drawn = resample(truth, predicted, classes, groups)
    return {name: [_rounded(np.quantile(found, q)) for q in (_TAIL, 1 - _TAIL)] for name, found in drawn.items()}


def resample(
    truth: Integers, predicted: Integers, classes: int, groups: Sequence[str] | Integers | None
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the scores on each draw of the photos, or of whole groups of them; answers do not change the draws."""
    units = np.arange(len(truth)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members = int(units.max()) + 1
    shares, right = np.full(members, 1 / members), truth == predicted
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(_RESAMPLES):
        times = random.multinomial(members, shares)[units]  # how often each photo was drawn
        counted = ((truth[right], times[right]), (truth, times), (predicted, times))
        drawn.append(_score(*(np.bincount(numbers, weights, classes) for numbers, weights in counted)))
    return {name: np.array([sample[name] for sample in drawn]) for name in drawn[0]}


def _rounded(value: Any) -> float:
    return round(float(value), 4)
