from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clothing_classifier.evaluation.metrics import (
    compare_answers,
    confusion,
    expected_calibration_error,
    measure,
    measure_answers,
    measure_folds,
    reliability,
    risk_coverage,
    score,
    share_interval,
)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 200), classes=st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_the_scores_are_scikit_learns(seed: int, count: int, classes: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs the extra train")
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(0, classes, count), random.integers(0, classes, count)
    got = score(confusion(truth, predicted, classes))
    present = np.unique(truth)
    assert got["accuracy"] == pytest.approx(sklearn.accuracy_score(truth, predicted), abs=1e-4)
    for average in ("weighted", "macro"):
        wanted = sklearn.f1_score(truth, predicted, labels=present, average=average, zero_division=0)
        assert got[f"{average}_f1"] == pytest.approx(wanted, abs=1e-4)


def test_confusion_has_true_classes_in_rows() -> None:
    assert confusion(np.array([0, 0, 1]), np.array([1, 1, 0]), 2).tolist() == [[0, 2], [1, 0]]


def test_calibration_error_of_known_cases() -> None:
    assert expected_calibration_error(np.ones(10), np.ones(10, bool)) == 0
    assert expected_calibration_error(np.ones(10), np.zeros(10, bool)) == 1
    even = np.full(4, 0.75)
    assert expected_calibration_error(even, np.array([True, True, True, False])) == 0
    assert expected_calibration_error(even, np.array([True, True, False, False])) == 0.25


@given(seed=st.integers(0, 10_000), count=st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_calibration_is_told_by_fifteenths(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([0.5] * 2, count)
    probabilities[:2] = [[1, 0]]
    truth = (random.random(count) < probabilities[:, 1]).astype(np.int64)  # so that gaps are of either sign
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    gaps, rows = 0.0, reliability(probabilities, truth)
    for number in range(15):
        inside = (confidence >= number / 15) & ((confidence < (number + 1) / 15) | (number == 14))
        if not inside.any():
            continue
        gaps += abs(confidence[inside].sum() - right[inside].sum())
        wanted = [number / 15, (number + 1) / 15, inside.sum(), confidence[inside].mean(), right[inside].mean()]
        assert list(rows.pop(0).values()) == pytest.approx(wanted, abs=6e-5)
    assert not rows
    assert expected_calibration_error(confidence, right) == pytest.approx(gaps / count, abs=6e-5)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 250))
@settings(max_examples=30, deadline=None)
def test_the_risk_at_each_coverage_is_that_of_the_most_confident_answers(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, truth = random.dirichlet([0.5] * 3, count), random.integers(0, 3, count)
    confidence, wrong = probabilities.max(1), probabilities.argmax(1) != truth
    rows = risk_coverage(probabilities, truth)
    hundredths = sorted({max(1, round(count * share / 100)) for share in range(1, 101)})
    assert [row["coverage"] for row in rows] == pytest.approx([number / count for number in hundredths], abs=6e-5)
    for row in rows:
        answered = confidence >= row["threshold"] - 6e-5
        if answered.sum() == round(row["coverage"] * count):  # but for two that are as confident to four decimals
            assert row["risk"] == pytest.approx(wrong[answered].mean(), abs=6e-5)
            assert row["threshold"] == pytest.approx(confidence[answered].min(), abs=6e-5)
        else:
            assert (np.diff(np.sort(confidence)) < 2e-4).any()


def test_the_figures_of_each_class_are_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs the extra train")
    random = np.random.default_rng(4)
    truth, predicted = random.integers(0, 3, 60), random.integers(0, 4, 60)
    figures = measure_answers(truth, predicted, np.ones(60), "abcde", threshold=0)["per_class"]
    wanted = sklearn.precision_recall_fscore_support(truth, predicted, labels=range(5), zero_division=0)
    found = [[row[name] for row in figures.values()] for name in ("precision", "recall", "f1", "photos")]
    np.testing.assert_allclose(found, wanted, atol=6e-5)


def test_an_answer_at_the_threshold_is_sure() -> None:
    figures = measure_answers(np.array([0, 0]), np.array([0, 1]), np.array([0.8, 0.7999]), "ab", threshold=0.8)
    assert figures["sure"] == {"share": 0.5, "accuracy": 1.0}
    none = measure_answers(np.array([0]), np.array([0]), np.array([0.7]), "ab", threshold=0.8)
    assert none["sure"] == {"share": 0.0, "accuracy": None}, "no answer is neither right nor wrong"


def test_folds_are_told_one_by_one_and_by_what_photos_are() -> None:
    sizes = (4, 5, 19, 20, 99, 100)
    senders = np.repeat(np.arange(6), sizes)
    count = len(senders)
    random = np.random.default_rng(3)
    truth, folds = random.integers(0, 3, count), np.arange(count) % 3
    probabilities = random.dirichlet([0.7] * 3, count)
    kids = [(None, True, False)[number % 4 % 3] for number in range(count)]
    figures = measure_folds(
        truth, probabilities, "abc", folds, groups=None, senders=senders, kids=kids, subsets={"ab": ("a", "b")}
    )
    right = probabilities.argmax(1) == truth
    by_fold = [right[folds == fold].mean() for fold in range(3)]
    assert [row["accuracy"] for row in figures["folds"]] == pytest.approx(by_fold, abs=6e-5)
    assert figures["mean"]["accuracy"] == pytest.approx(np.mean(by_fold), abs=2e-4)
    assert figures["std"]["accuracy"] == pytest.approx(np.std(by_fold, ddof=1), abs=2e-4)
    of_sizes = {name: (row["photos"], row["accuracy"]) for name, row in figures["by"]["sender_size"].items()}
    ends = {"1-4": (0, 4), "5-19": (4, 28), "20-99": (28, 147), "100 or more": (147, 247)}
    assert of_sizes == {
        name: (end - start, pytest.approx(right[start:end].mean(), abs=6e-5)) for name, (start, end) in ends.items()
    }
    for name, value in (("unknown", None), ("kids", True), ("adults", False)):
        chosen = np.array([child is value for child in kids])
        assert figures["by"]["kids"][name]["photos"] == chosen.sum()
        assert figures["by"]["kids"][name]["accuracy"] == pytest.approx(right[chosen].mean(), abs=6e-5)
    inside = truth < 2
    among = probabilities[inside][:, :2].argmax(1) == truth[inside]
    assert figures["subsets"]["ab"]["accuracy"] == pytest.approx(among.mean(), abs=6e-5)
    assert figures["subsets"]["ab_open"]["accuracy"] == pytest.approx(right[inside].mean(), abs=6e-5)
    assert figures["subsets"]["ab"]["photos"] == inside.sum()


def test_measure_tells_classes_intervals_and_what_is_sure() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 400)
    confidence = np.where(random.random(400) < 0.5, 0.95, 0.6)
    right = random.random(400) < confidence
    predicted = np.where(right, truth, 1 - truth)
    probabilities = np.where(predicted[:, None] == np.arange(2), confidence[:, None], 1 - confidence[:, None])
    figures = measure(truth, probabilities, ("a", "b"), threshold=0.9)
    assert figures["accuracy"] == pytest.approx(right.mean(), abs=1e-4)
    assert figures["sure"]["share"] == pytest.approx((confidence > 0.9).mean(), abs=1e-4)
    assert figures["sure"]["accuracy"] == pytest.approx(right[confidence > 0.9].mean(), abs=1e-4)
    assert figures["per_class"]["a"]["photos"] == int((truth == 0).sum())
    low, high = figures["intervals"]["accuracy"]
    assert low < figures["accuracy"] < high
    assert 0.05 < high - low < 0.11, "about four standard errors of 400 coin tosses at 0.78"


def test_intervals_over_senders_are_wider_where_a_sender_fails_as_a_whole() -> None:
    senders = [str(number // 20) for number in range(400)]
    truth = np.zeros(400, np.int64)
    wrong = (np.arange(400) // 20) % 4 == 0
    probabilities = np.where(wrong[:, None], [[0.2, 0.8]], [[0.8, 0.2]])

    def width(groups: list[str] | None) -> float:
        low, high = measure(truth, probabilities, ("a", "b"), threshold=0, groups=groups)["intervals"]["accuracy"]
        return float(high - low)

    assert width(senders) > 2 * width(None)


def test_intervals_are_those_of_the_drawn_senders_confusion_matrices() -> None:
    random = np.random.default_rng(1)
    truth, units = random.integers(0, 3, 90), random.integers(0, 12, 90)
    predicted = np.where(random.random(90) < 0.7, truth, random.integers(0, 3, 90))
    figures = measure(truth, np.eye(3)[predicted], ("a", "b", "c"), threshold=0, groups=[f"{u:02}" for u in units])
    draws, drawn = np.random.default_rng(0), []
    for _ in range(1000):
        times = draws.multinomial(12, np.full(12, 1 / 12))
        photos = np.repeat(np.arange(90), times[units])
        drawn.append(score(confusion(truth[photos], predicted[photos], 3)))
    for name, interval in figures["intervals"].items():
        wanted = np.quantile([one[name] for one in drawn], (0.025, 0.975))
        np.testing.assert_allclose(interval, wanted, atol=1e-4)


def test_what_is_hard_for_both_cancels_out_of_the_difference() -> None:
    """Both err on the same hundred photos; the second one errs on eight more, of four senders."""
    random = np.random.default_rng(0)
    truth, groups = random.integers(0, 3, 400), np.arange(400) // 2
    first = np.where(np.arange(400) < 100, (truth + 1) % 3, truth)
    second = np.where(np.arange(400) >= 392, (truth + 1) % 3, first)
    found = compare_answers(truth, first, second, 3, groups=groups)
    assert found["accuracy"]["difference"] == pytest.approx(8 / 400)
    low, high = found["accuracy"]["interval"]
    assert 0 < low < 0.02 < high < 0.05, "four of 200 senders: 0.02 with a standard deviation of 0.01"
    alone = measure_answers(truth, first, np.ones(400), "abc", threshold=0, groups=groups)["intervals"]["accuracy"]
    assert high - low < (alone[1] - alone[0]) / 2
    turned = compare_answers(truth, second, first, 3, groups=groups)
    assert turned["weighted_f1"]["difference"] == -found["weighted_f1"]["difference"]
    assert turned["weighted_f1"]["interval"] == [-end for end in reversed(found["weighted_f1"]["interval"])]
    with pytest.raises(ValueError, match="400 labels do not fit 400 and 399"):
        compare_answers(truth, first, second[1:], 3)


def test_a_thousand_classes_can_be_measured() -> None:
    truth = np.arange(1000).repeat(2)
    figures = measure(truth, np.eye(1000, dtype=np.float32)[truth], [str(n) for n in range(1000)], threshold=0)
    assert figures["intervals"]["weighted_f1"] == [1, 1]


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="no photos"):
        measure(np.empty(0, np.int64), np.empty((0, 2)), ("a", "b"), threshold=0)
    with pytest.raises(ValueError, match="3 labels do not fit 2"):
        measure(np.zeros(3, np.int64), np.ones((2, 2)) / 2, ("a", "b"), threshold=0)


@pytest.mark.parametrize("senders", [2, 3, 5, 40])
def test_few_senders_tell_as_little_as_students_t_says(senders: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs the extra own")
    groups = np.arange(200) % senders
    count = 200 * (stats.t.ppf(0.975, 199) / stats.t.ppf(0.975, senders - 1)) ** 2
    low, high = share_interval(np.ones(200, bool), groups)
    assert high == 1
    assert low == pytest.approx(stats.beta.ppf(0.025, count, 1), abs=1e-4)
