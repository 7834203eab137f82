"""What a model says of photos that somebody has labelled → figures, and whether its promise holds on them."""

from __future__ import annotations

import heapq
from array import array
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from clothing_classifier.card import ModelCard
from clothing_classifier.classifier import Prediction
from clothing_classifier.evaluation.metrics import compare_answers, measure_answers, score_sure, share_interval
from clothing_classifier.training.calibration import choose_threshold

Verdict = Literal["kept", "within chance", "broken"]
"""Whether a promise holds: by more than chance, for all that these photos show, or not, by more than chance."""

_MISTAKES: Final = 10
_FEWEST_PHOTOS: Final = 200
_FEWEST_WRONG: Final = 10
"""Photos, and wrong answers among them, without which a threshold chosen on them says nothing of others."""


class Evaluation:
    """The figures of one model on labelled photos. Of each photo it keeps 20 bytes, however many there are.

    Args:
        card: the model's.
        threshold: answers below it are "not sure".
    """

    def __init__(self, card: ModelCard, threshold: float) -> None:
        self._card = card
        self._threshold = threshold
        self._numbers = {label: number for number, label in enumerate(card.labels)}
        self._truth, self._predicted = array("i"), array("i")
        self._confidence = array("d")
        self._senders = array("i")
        self._known: dict[str, int] = {}
        self._mistakes: list[tuple[float, int, dict[str, Any]]] = []

    def add(self, path: str, label: str, prediction: Prediction, sender: str | None = None) -> None:
        """Take one photo's answer.

        Args:
            path: of the photo, to name it if it is a mistake.
            label: what it truly shows, one of the card's labels.
            prediction: what the model says.
            sender: who sent it; ``None`` makes the photo a sender of its own.

        Raises:
            KeyError: the model has no such class.
        """
        count = len(self._truth)
        self._truth.append(self._numbers[label])
        self._predicted.append(self._numbers[prediction.label])
        self._confidence.append(prediction.probability)
        self._senders.append(-1 if sender is None else self._known.setdefault(sender, len(self._known)))
        if prediction.label != label:
            told = {"path": path, "label": label, "predicted": prediction.label, "probability": prediction.probability}
            entry = (prediction.probability, -count, told)  # of mistakes that are as confident, the first stay
            heapq.heappush(self._mistakes, entry)
            if len(self._mistakes) > _MISTAKES:
                heapq.heappop(self._mistakes)

    def figures(self) -> dict[str, Any]:
        """Return all figures, in the form of JSON.

        Returns:
            What `measure_answers` does, ``sure`` with numbers and interval too, and ``intervals_over`` (senders or
            photos), ``senders`` (how many, ``None`` if unknown), ``threshold``, ``promise`` (the card's, with the
            `Verdict` on it; ``None`` for a card that promises nothing), ``keeping`` (the threshold that would keep it
            on these photos; ``None`` if there is none or too few photos to tell) and ``mistakes`` (the ten most
            confident ones).

        Raises:
            ValueError: no photo was added.
        """
        truth = np.array(self._truth, np.int64)
        predicted = np.array(self._predicted, np.int64)
        confidence = np.array(self._confidence, np.float64)
        groups = self._groups()
        figures = measure_answers(
            truth, predicted, confidence, self._card.labels, threshold=self._threshold, groups=groups
        )
        right, sure = predicted == truth, confidence >= self._threshold
        interval = share_interval(right[sure], None if groups is None else groups[sure]) if sure.any() else None
        figures["sure"] |= {"photos": int(sure.sum()), "right": int(right[sure].sum()), "interval": interval}
        promise = self._judge(figures["sure"])
        return {
            **figures,
            "intervals_over": "photos" if groups is None else "senders",
            "senders": len(self._known) or None,
            "threshold": self._threshold,
            "promise": promise,
            "keeping": None if promise is None else _keep(promise["accuracy"], confidence, right),
            "mistakes": [told for *_, told in sorted(self._mistakes, reverse=True)],
        }

    def compare(self, other: Evaluation) -> dict[str, Any]:
        """Return another model's figures on the same photos, and how much better this one is.

        Args:
            other: what was added to it are the same photos in the same order; its card has the same labels.

        Returns:
            ``accuracy``, ``weighted_f1``, ``macro_f1``, ``expected_calibration_error`` and ``sure`` of the other, its
            ``threshold``, and ``differences`` as `compare_answers` gives them, this model less the other.

        Raises:
            ValueError: no photo was added, or not the same ones.
        """
        theirs, numbers = other.figures(), self._numbers
        places = np.array([numbers[label] for label in other._card.labels], np.int64)
        truth, predicted = np.array(self._truth, np.int64), np.array(self._predicted, np.int64)
        if not np.array_equal(truth, places[np.array(other._truth, np.int64)]):
            raise ValueError("the other model was not measured on the same photos")
        names = ("accuracy", "weighted_f1", "macro_f1", "expected_calibration_error", "sure", "threshold")
        found = compare_answers(
            truth, predicted, places[np.array(other._predicted, np.int64)], len(numbers), groups=self._groups()
        )
        return {**{name: theirs[name] for name in names}, "differences": found}

    def _groups(self) -> npt.NDArray[np.int64] | None:
        """Return a number for each photo's sender, or ``None`` where senders cannot be compared."""
        senders = np.array(self._senders, np.int64)
        groups = np.where(senders < 0, len(self._known) + np.arange(len(senders)), senders)
        return groups if self._known and len(np.unique(groups)) > 1 else None

    def _judge(self, sure: dict[str, Any]) -> dict[str, Any] | None:
        card, promise = self._card, self._card.promise
        accuracy = _share(promise.get("accuracy"))
        if not accuracy:
            return None
        verdict: Verdict | None = None
        if sure["interval"] is not None and self._threshold == card.threshold and promise.get("kept") is not False:
            low, high = sure["interval"]
            verdict = "kept" if low >= accuracy else "broken" if high < accuracy else "within chance"
        return {
            "accuracy": accuracy,
            "threshold": card.threshold,
            "made": promise.get("kept") is not False,
            "share": _share(promise.get("share")),
            "measured_accuracy": _share(promise.get("measured_accuracy")),
            "verdict": verdict,
        }


def _share(value: object) -> float | None:
    """Return what a card says, if it is a share at all."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    return None


def _keep(
    accuracy: float, confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]
) -> dict[str, float | None] | None:
    """Return the lowest threshold at which the answers are right as often as promised, and what it does here.

    Its ``threshold`` is ``None`` where no threshold does; all is ``None`` where there are too few photos to tell.
    """
    if len(right) < _FEWEST_PHOTOS or (~right).sum() < _FEWEST_WRONG:
        return None
    # To the choice it is all one which class is right: here class 0 is each photo's answer, and class 1 any other.
    found = choose_threshold(confidence[:, None], np.where(right, 0, 1), accuracy)
    sure = confidence >= found.threshold
    if not found.kept:
        return {"threshold": None, "share": None, "accuracy": None}
    return {"threshold": found.threshold, **score_sure(sure, right)}
