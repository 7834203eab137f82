from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the extra own")
pytest.importorskip("sklearn", reason="needs the extra own")

from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from clothing_classifier.training import head as solver
from clothing_classifier.training.head import STRENGTHS, fit_head, measure_loss

CLASSES = 3


def draw(photos: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds on features of very different scales, one of them constant."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, photos)
    centres = np.random.default_rng(7).normal(0, 2, (CLASSES, 6))
    features = centres[labels] + random.normal(0, spread, (photos, 6))
    features = features * np.array([1e-3, 1, 1, 50, 1, 1]) + np.array([0, 5, 0, -300, 0, 0])
    return np.concatenate([features, np.full((photos, 1), 4.2)], 1).astype(np.float32), labels


def test_it_is_logistic_regression_on_standardised_features() -> None:
    features, labels = draw(400, 0, spread=2.0)
    head = fit_head([features], labels, np.arange(400), CLASSES)
    standard = (features - features.mean(0)) / np.where(features.std(0) > 1e-6, features.std(0), 1)
    # scikit-learn's penalty is of the sum of losses, ours of their mean.
    peer = LogisticRegression(C=1 / (400 * head.strength), max_iter=1000).fit(standard, labels)
    ours, theirs = head.compute_logits(features), peer.decision_function(standard)
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), atol=0.02)
    fresh, truth = draw(400, 1, spread=2.0)
    assert (head.compute_logits(fresh).argmax(1) == truth).mean() > 0.7


def test_each_view_of_a_photo_teaches_with_its_label() -> None:
    features, labels = draw(150, 0, spread=2.0)
    other = features + np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    head = fit_head([features, other], labels, np.arange(150), CLASSES)
    both = np.concatenate([features, other])
    standard = (both - head.centre) / head.spread
    peer = LogisticRegression(C=1 / (300 * head.strength), max_iter=1000).fit(standard, np.tile(labels, 2))
    ours, theirs = head.compute_logits(both), peer.decision_function(standard)
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), atol=0.02)


def test_a_feature_that_is_always_zero_tells_nothing() -> None:
    features, labels = draw(60, 0)
    features[:, 2] = 0
    head = fit_head([features], labels, np.arange(60), CLASSES)
    told = head.compute_logits(features)
    assert np.isfinite(told).all()
    features[:, 2] = 3
    np.testing.assert_allclose(head.compute_logits(features), told, atol=1e-4)


@given(seed=st.integers(0, 999), strength=st.sampled_from([0.0, *STRENGTHS]))
@settings(max_examples=20, deadline=None)
def test_the_gradient_is_the_losses_slope(seed: int, strength: float) -> None:
    random = np.random.default_rng(seed)
    features, labels = random.normal(size=(30, 5)).astype(np.float32), random.integers(0, CLASSES, 30)
    parameters = random.normal(size=(CLASSES, 6))

    def measure(at: np.ndarray) -> tuple[float, np.ndarray]:
        return measure_loss(at, features, labels, strength)

    _, gradient = measure(parameters)
    direction = random.normal(size=parameters.shape)
    step = 1e-2 * direction / np.linalg.norm(direction)
    slope = (measure(parameters + step)[0] - measure(parameters - step)[0]) / 2
    assert slope == pytest.approx((gradient * step).sum(), abs=2e-6)


def test_the_folded_layer_takes_features_as_they_are() -> None:
    features, labels = draw(200, 3)
    head = fit_head([features], labels, np.arange(200), CLASSES)
    weight, bias = head.fold()
    np.testing.assert_allclose(features @ weight.T + bias, head.compute_logits(features), atol=1e-3)


def test_the_penalty_is_chosen_for_senders_that_are_not_known() -> None:
    """Where each sender has a look of his own that gives the class away, only unseen senders show that it misleads."""
    random = np.random.default_rng(0)
    senders = np.repeat(np.arange(60), 10)
    labels = np.repeat(random.integers(0, CLASSES, 60), 10)
    looks = random.normal(0, 1, (60, 40))[senders]
    weak = np.eye(CLASSES)[labels] + random.normal(0, 1.0, (600, CLASSES))
    features = np.concatenate([looks, weak], 1).astype(np.float32)
    by_sender = fit_head([features], labels, senders, CLASSES).strength
    by_photo = fit_head([features], labels, np.arange(600), CLASSES).strength
    assert by_sender > by_photo


def test_no_group_is_on_two_sides_of_an_inner_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = draw(120, 5)
    groups = np.random.default_rng(0).integers(0, 20, 120)
    marked = np.concatenate([features, groups[:, None]], 1).astype(np.float32)
    marks = (np.arange(20) - marked[:, -1].mean()) / marked[:, -1].std()
    taught: list[np.ndarray] = []
    solve = solver._solve

    def watch(features: np.ndarray, *arguments: Any) -> np.ndarray:
        found = np.abs(features[:, -1:] - marks).argmin(1)
        taught.append(np.bincount(found, minlength=20))
        return solve(features, *arguments)

    monkeypatch.setattr(solver, "_solve", watch)
    fit_head([marked], labels, groups, CLASSES)
    whole = np.bincount(groups, minlength=20)
    inner = taught[: 3 * len(STRENGTHS)]
    assert all(np.isin(counts, [0]).any() for counts in inner), "each inner fold holds some groups back"
    assert all(((counts == 0) | (counts == whole)).all() for counts in inner)
    assert (taught[-1] == whole).all()


@given(photos=st.integers(3, 12), senders=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_few_photos_few_senders_and_missing_classes_are_no_trouble(photos: int, senders: int, seed: int) -> None:
    features, labels = draw(photos, seed)
    groups = np.random.default_rng(seed).integers(0, senders, photos)
    head = fit_head([features, features[:, ::-1].copy()], labels, groups, CLASSES + 1)
    assert head.weight.shape == (CLASSES + 1, 7)
    assert np.isfinite(head.weight).all()
    assert head.strength in STRENGTHS
