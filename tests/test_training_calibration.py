from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="needs the extra train")

from clothing_classifier.evaluation.metrics import expected_calibration_error
from clothing_classifier.training.calibration import (
    Promise,
    calibrate_folds,
    choose_threshold,
    find_sure,
    fit_calibration,
    fit_temperature,
    promise_across,
    soften,
)
from clothing_classifier.training.subspace import doubt


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_scale(factor: float) -> None:
    """Labels are drawn from the softmax of the logits, so the logits times a factor are calibrated at that factor."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 5))
    labels = np.array([random.choice(5, p=row) for row in softmax(logits)])
    scaled = (logits * factor).astype(np.float32)
    temperature = fit_temperature(scaled, labels)
    assert temperature == pytest.approx(factor, rel=0.05)
    found = softmax(scaled / temperature)
    assert expected_calibration_error(found.max(1), found.argmax(1) == labels) < 0.015


@given(seed=st.integers(0, 10_000), count=st.integers(1, 300), accuracy=st.sampled_from([0.5, 0.9, 0.97]))
@settings(max_examples=60, deadline=None)
def test_a_kept_promise_holds_on_the_photos_it_was_chosen_on(seed: int, count: int, accuracy: float) -> None:
    random = np.random.default_rng(seed)
    probabilities = softmax(random.normal(0, 3, (count, 4)))
    labels = np.where(random.random(count) < 0.8, probabilities.argmax(1), random.integers(0, 4, count))
    promise = choose_threshold(probabilities, labels, accuracy)
    assert promise.threshold == round(promise.threshold, 4), "as it is told"
    sure = probabilities.max(1) >= promise.threshold
    right = (probabilities.argmax(1) == labels)[sure].mean()
    assert sure.sum() >= min(30, count)
    if promise.kept:
        assert right >= accuracy
    assert promise.share == sure.mean()
    assert promise.measured_accuracy == right


def test_each_fold_is_calibrated_by_the_others_and_strange_photos_are_doubted() -> None:
    random = np.random.default_rng(0)
    labels, folds = random.integers(0, 3, 300), np.arange(300) % 3
    logits = random.normal(0, 2, (300, 3)).astype(np.float32)
    residuals = random.gamma(2, size=300).astype(np.float32)
    given: list[tuple[bytes, int]] = []

    def fit(logits: np.ndarray, labels: np.ndarray) -> float:
        given.append((logits.tobytes(), len(labels)))
        return 1.0 + len(given)

    probabilities, temperatures = calibrate_folds(logits, residuals, labels, folds, fit)
    assert temperatures == [2.0, 3.0, 4.0]
    for fold, temperature in enumerate(temperatures):
        own = folds == fold
        limit = np.quantile(residuals[~own], 0.9)
        assert given[fold] == (doubt(logits[~own], residuals[~own], limit).tobytes(), 200)
        wanted = softmax(doubt(logits[own], residuals[own], limit) / temperature)
        np.testing.assert_allclose(probabilities[own], wanted, rtol=1e-5)
    found = fit_calibration(logits, residuals, labels)
    assert found.temperature == fit_temperature(doubt(logits, residuals, found.limit), labels)


def test_logits_of_any_size_have_a_softmax() -> None:
    np.testing.assert_array_equal(soften(np.array([[5000.0, 0.0], [-5000.0, -5000.0]])), [[1, 0], [0.5, 0.5]])


def test_a_threshold_is_chosen_without_the_photos_that_it_judges() -> None:
    random = np.random.default_rng(0)
    truth, folds = random.integers(0, 3, 90), np.arange(90) % 3
    probabilities = random.dirichlet([0.5] * 3, 90)

    def choose(probabilities: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> float:
        return {(1, 2): 0.5, (0, 2): 2.0, (0, 1): float(probabilities[0].max())}[tuple(np.unique(folds).tolist())]

    sure = find_sure(probabilities, truth, folds, choose)
    best = probabilities.max(1)
    assert (sure == np.select([folds == 0, folds == 1], [best >= 0.5, False], best >= best[0])).all()


@given(seed=st.integers(0, 10_000), count=st.integers(30, 200), accuracy=st.sampled_from([0.5, 0.8, 0.97]))
@settings(max_examples=60, deadline=None)
def test_no_lower_threshold_keeps_the_promise(seed: int, count: int, accuracy: float) -> None:
    random = np.random.default_rng(seed)
    best = random.integers(50, 100, count) / 100  # coarse, so that several photos are as probable
    probabilities = np.stack([best, 1 - best], 1)
    labels = (random.random(count) > best + random.choice([-0.2, 0.0])).astype(np.int64)

    def right(threshold: float) -> float:
        return float((labels == 0)[best >= threshold].mean())

    promise = choose_threshold(probabilities, labels, accuracy)
    enough = [threshold for threshold in np.unique(best) if (best >= threshold).sum() >= 30]
    keeping = [threshold for threshold in enough if right(threshold) >= accuracy]
    assert promise.kept == bool(keeping)
    if keeping:
        assert promise.threshold == pytest.approx(min(keeping), abs=1e-4)
    else:
        assert right(promise.threshold) == max(map(right, enough))


def test_a_promise_is_kept_only_if_other_photos_show_it() -> None:
    promise = Promise(0.8, 0.97, True, 0.98, 0.7, 200)
    assert promise.judged(0.6, 0.975, 50) == Promise(0.8, 0.97, True, 0.975, 0.6, 200)
    assert not promise.judged(0.6, 0.96, 50).kept
    assert not promise.judged(0.0, None, 50).kept
    assert not promise.judged(0.6, 1.0, 48).kept, "29 answers"
    assert not replace(promise, kept=False).judged(0.6, 0.99, 50).kept


def draw(answers: list[tuple[int, int, float, bool]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities, truth and folds of so many photos each: count, fold, probability, whether it is right."""
    counts = [count for count, *_ in answers]
    folds, best, right = (np.repeat([row[place] for row in answers], counts) for place in (1, 2, 3))
    return np.stack([best, 1 - best], 1), 1 - right.astype(np.int64), folds


def test_a_promise_that_all_photos_keep_but_not_the_folds_is_not_kept() -> None:
    given = draw([(60, 0, 0.9, True), (40, 0, 0.99, True), (50, 1, 0.95, True), (50, 1, 0.95, False)])
    assert choose_threshold(*given[:2], 0.99).kept
    promise = promise_across(*given)
    assert (promise.kept, promise.measured_accuracy) == (False, round(90 / 140, 4))


def test_one_fold_alone_aims_at_the_promise_itself() -> None:
    first = [(98, 0, 0.9, True), (2, 0, 0.9, False), (40, 0, 0.99, True), (30, 0, 0.6, False)]
    promise = promise_across(*draw([*first, (100, 1, 0.9, True)]))
    assert promise.share == round(240 / 270, 4), "what is at 0.9 is right as often as promised, but in no 99 %"


def test_a_promise_of_fewer_answers_than_prove_anything_is_not_kept() -> None:
    given = draw([(15, 0, 0.999, True), (14, 1, 0.999, True), (1, 2, 0.99, True), (40, 2, 0.6, False)])
    assert choose_threshold(*given[:2], 0.99).kept, "thirty answers, and all right"
    promise = promise_across(*given)
    assert (promise.kept, promise.measured_accuracy, promise.share) == (False, 1.0, round(29 / 70, 4))


def test_few_photos_show_nothing_however_right() -> None:
    truth = np.zeros(29, np.int64)
    assert not choose_threshold(np.tile([0.9, 0.1], (29, 1)), truth).kept
    assert choose_threshold(np.tile([0.9, 0.1], (30, 1)), np.zeros(30, np.int64)).kept
    assert not promise_across(np.tile([0.9, 0.1], (29, 1)), truth, np.arange(29) % 2).kept


def test_no_photos_make_no_promise() -> None:
    promise = choose_threshold(np.empty((0, 3)), np.empty(0, np.int64))
    assert not promise.kept
    assert fit_temperature(np.empty((0, 3), np.float32), np.empty(0, np.int64)) == 1.0
