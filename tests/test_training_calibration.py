from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="needs the extra train")

from clothing_classifier.evaluation.metrics import expected_calibration_error
from clothing_classifier.training.calibration import Promise, choose_threshold, fit_temperature, promise_across


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
    sure = probabilities.max(1) >= promise.threshold
    right = (probabilities.argmax(1) == labels)[sure].mean()
    assert sure.sum() >= min(30, count)
    if promise.kept:
        assert right >= accuracy
    assert promise.share == sure.mean()
    assert promise.measured_accuracy == right


def test_a_promise_is_kept_only_if_other_photos_show_it() -> None:
    promise = Promise(0.8, 0.97, True, 0.98, 0.7, 200)
    assert promise.judged(0.6, 0.975, 50) == Promise(0.8, 0.97, True, 0.975, 0.6, 200)
    assert not promise.judged(0.6, 0.96, 50).kept
    assert not promise.judged(0.0, None, 50).kept
    assert not promise.judged(0.6, 1.0, 48).kept, "29 answers"
    assert not replace(promise, kept=False).judged(0.6, 0.99, 50).kept


def test_few_photos_show_nothing_however_right() -> None:
    truth = np.zeros(29, np.int64)
    assert not choose_threshold(np.tile([0.9, 0.1], (29, 1)), truth).kept
    assert choose_threshold(np.tile([0.9, 0.1], (30, 1)), np.zeros(30, np.int64)).kept
    assert not promise_across(np.tile([0.9, 0.1], (29, 1)), truth, np.arange(29) % 2).kept


def test_no_photos_make_no_promise() -> None:
    promise = choose_threshold(np.empty((0, 3)), np.empty(0, np.int64))
    assert not promise.kept
    assert fit_temperature(np.empty((0, 3), np.float32), np.empty(0, np.int64)) == 1.0
