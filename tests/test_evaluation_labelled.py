from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clothing_classifier.card import ModelCard
from clothing_classifier.classifier import Prediction
from clothing_classifier.evaluation.labelled import Evaluation
from clothing_classifier.evaluation.metrics import measure, share_interval

Answer = tuple[str, str, float]


@pytest.fixture(scope="module")
def card(tiny_card: ModelCard) -> ModelCard:
    """Of red, green and blue; it promises 97 % at 0.6."""
    return tiny_card


def take(
    card: ModelCard,
    answers: Sequence[Answer],
    senders: Sequence[str | None] | None = None,
    threshold: float | None = None,
) -> Evaluation:
    """Return an evaluation that was given answers: the true label, the one that was said, its probability."""
    evaluation = Evaluation(card, card.threshold if threshold is None else threshold)
    for number, (label, said, probability) in enumerate(answers):
        others = [other for other in card.labels if other != said]
        prediction = Prediction((said, *others), (probability, *[(1 - probability) / 2] * 2), evaluation._threshold)
        evaluation.add(f"{number}.jpg", label, prediction, senders[number] if senders else None)
    return evaluation


def evaluate(
    card: ModelCard,
    answers: Sequence[Answer],
    senders: Sequence[str | None] | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Return the figures of answers."""
    return take(card, answers, senders, threshold).figures()


def named(right: int, wrong: int) -> list[Answer]:
    return [("red", "red", 0.99)] * right + [("green", "red", 0.95)] * wrong


@given(seed=st.integers(0, 1000), count=st.integers(1, 60), known=st.booleans())
@settings(max_examples=8, deadline=None)
def test_the_figures_are_those_of_all_probabilities(card: ModelCard, seed: int, count: int, known: bool) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, count)
    probabilities = random.dirichlet([0.4] * 3, count)
    senders = [f"{n:03}" for n in random.integers(0, 7, count)]
    evaluation = Evaluation(card, card.threshold)
    for number in range(count):
        order = np.argsort(-probabilities[number])
        ranked = Prediction(
            tuple(card.labels[i] for i in order), tuple(probabilities[number][order].tolist()), card.threshold
        )
        evaluation.add(str(number), card.labels[truth[number]], ranked, senders[number] if known else None)
    figures = evaluation.figures()
    # Senders are numbered as they come; the bootstrap draws the same members either way.
    numbers = {sender: f"{n:03}" for n, sender in enumerate(dict.fromkeys(senders))}
    groups = [numbers[sender] for sender in senders] if known and len(numbers) > 1 else None
    wanted = measure(truth, probabilities, card.labels, threshold=card.threshold, groups=groups)
    wanted["sure"] |= {key: figures["sure"][key] for key in ("photos", "right", "interval")}
    assert {key: figures[key] for key in wanted} == wanted
    assert (figures["intervals_over"], figures["senders"]) == (
        "senders" if groups else "photos",
        len(numbers) if known else None,
    )


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (named(500, 0), "kept"),
        (named(500, 14), "within chance"),
        (named(98, 2), "within chance"),
        (named(95, 5), "within chance"),
        (named(90, 10), "broken"),
        ([("red", "red", 0.5)] * 9, None),
    ],
)
def test_a_promise_holds_or_not_or_chance_may_have_it(
    card: ModelCard, answers: list[Answer], verdict: str | None
) -> None:
    figures = evaluate(card, answers)
    assert figures["promise"]["verdict"] == verdict
    assert figures["promise"]["made"]
    assert (figures["sure"]["interval"] is None) == (verdict is None)


def test_a_promise_is_judged_at_its_own_threshold_and_only_if_it_is_made(card: ModelCard) -> None:
    answers = named(90, 10)
    assert evaluate(card, answers, threshold=0.5)["promise"]["verdict"] is None
    withdrawn = evaluate(replace(card, promise={"accuracy": 0.97, "kept": False}), answers)["promise"]
    assert (withdrawn["made"], withdrawn["verdict"], withdrawn["share"]) == (False, None, None)
    whole = evaluate(replace(card, promise={"accuracy": 1, "share": 0}), answers)["promise"]
    assert (whole["accuracy"], whole["share"]) == (1, 0)
    for nothing in (
        {},
        {"accuracy": None},
        {"accuracy": 0},
        {"accuracy": -1},
        {"accuracy": "all"},
        {"accuracy": True},
        {"accuracy": 97},
    ):
        assert evaluate(replace(card, promise=nothing), answers)["promise"] is None


def test_a_promise_at_an_end_of_the_interval_is_within_it(card: ModelCard) -> None:
    answers = named(95, 5)
    low, high = evaluate(card, answers)["sure"]["interval"]
    for accuracy, verdict in ((low, "kept"), (high, "within chance")):
        assert evaluate(replace(card, promise={"accuracy": accuracy}), answers)["promise"]["verdict"] == verdict


def test_senders_that_fail_as_a_whole_make_a_verdict_less_certain(card: ModelCard) -> None:
    answers = named(180, 20)
    assert evaluate(card, answers)["promise"]["verdict"] == "broken"
    one_fails = ["a"] * 90 + ["b"] * 90 + ["c"] * 20
    assert evaluate(card, answers, one_fails)["promise"]["verdict"] == "within chance"
    alone = evaluate(card, answers, ["a"] * 200)
    assert (alone["intervals_over"], alone["senders"], alone["promise"]["verdict"]) == ("photos", 1, "broken")


def test_a_photo_whose_sender_nobody_knows_is_a_sender_of_its_own(card: ModelCard) -> None:
    answers = [*named(20, 20), *named(60, 0), *named(0, 20)]
    known = ["a"] * 60 + ["b"] * 20
    figures = evaluate(card, answers, [*[None] * 40, *known])
    assert (figures["intervals_over"], figures["senders"]) == ("senders", 2)
    assert figures["sure"] == evaluate(card, answers, [*map(str, range(40)), *known])["sure"]
    one = evaluate(card, answers, [*[None] * 40, *["a"] * 80])
    assert (one["intervals_over"], one["senders"]) == ("senders", 1)


@pytest.mark.parametrize("threshold", [0.6, 0.7])
def test_an_answer_at_the_threshold_is_sure(card: ModelCard, threshold: float) -> None:
    below = threshold - 0.0001
    answers = [("red", "red", threshold), ("green", "red", below), ("red", "red", below), ("blue", "red", below)]
    sure = evaluate(card, answers, threshold=threshold)["sure"]
    assert (sure["share"], sure["photos"], sure["right"]) == (0.25, 1, 1)


def test_a_threshold_is_told_only_where_there_are_photos_and_mistakes_enough(card: ModelCard) -> None:
    answers = [*named(190, 0), *[("green", "red", 0.8)] * 10]
    assert evaluate(card, answers)["keeping"] == {"threshold": 0.99, "share": 0.95, "accuracy": 1.0}
    less = replace(card, promise={"accuracy": 0.9})
    assert evaluate(less, answers)["keeping"] == {"threshold": 0.8, "share": 1.0, "accuracy": 0.95}
    assert evaluate(card, named(100, 100))["keeping"]["threshold"] == 0.99
    mixed = evaluate(card, [("red", "red", 0.9), ("green", "red", 0.9)] * 100)["keeping"]
    assert mixed == {"threshold": None, "share": None, "accuracy": None}
    for few in (named(191, 9), named(179, 20)):
        assert evaluate(card, few)["keeping"] is None


def test_the_most_confident_mistakes_are_told(card: ModelCard) -> None:
    probabilities = [0.5 + (number * 7 % 30) / 100 for number in range(30)]
    answers = [("blue", "green", p) for p in probabilities] + named(5, 0) + [("blue", "red", 0.79)] * 2
    mistakes = evaluate(card, answers)["mistakes"]
    wanted = sorted(((-p, n) for n, p in enumerate([*probabilities, *[0] * 5, 0.79, 0.79])))[:10]
    assert [(m["path"], m["probability"]) for m in mistakes] == [(f"{n}.jpg", -p) for p, n in wanted]
    assert mistakes[0] == {"path": "17.jpg", "label": "blue", "predicted": "green", "probability": 0.79}


def test_two_models_are_compared_by_senders_where_these_are_known(card: ModelCard) -> None:
    """The one fails at a single sender's photos: by photos that is clear, and of ten senders it is one."""
    good, bad = [("red", "red", 0.9)] * 100, [("red", "red", 0.9)] * 90 + [("red", "green", 0.9)] * 10
    senders = [str(number // 10) for number in range(100)]
    for known, clear in ((None, True), (senders, False)):
        beside = take(card, good, known).compare(take(card, bad, known, 0.7))
        assert (beside["accuracy"], beside["threshold"]) == (0.9, 0.7)
        assert beside["differences"]["accuracy"]["difference"] == 0.1
        assert (beside["differences"]["accuracy"]["interval"][0] > 0) == clear


def test_models_are_compared_on_the_same_photos_alone(card: ModelCard) -> None:
    answers = named(5, 5)
    for others in (named(5, 4), named(4, 6)):
        with pytest.raises(ValueError, match="not measured on the same photos"):
            take(card, answers).compare(take(card, others))


def test_what_is_no_class_or_no_photo_is_an_error(card: ModelCard) -> None:
    with pytest.raises(KeyError):
        evaluate(card, [("pink", "red", 0.9)])
    with pytest.raises(ValueError, match="no photos"):
        evaluate(card, [])


@given(right=st.integers(0, 300), wrong=st.integers(0, 300))
@example(right=1, wrong=0)
@example(right=0, wrong=5)
@settings(max_examples=50, deadline=None)
def test_the_interval_of_a_share_is_clopper_and_pearsons(right: int, wrong: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs the extra train")
    answers = np.arange(right + wrong) < right
    if not len(answers):
        with pytest.raises(ValueError, match="no answers"):
            share_interval(answers)
        return
    wanted = stats.binomtest(right, right + wrong).proportion_ci(method="exact")
    assert share_interval(answers) == pytest.approx([wanted.low, wanted.high], abs=6e-5)
    assert share_interval(answers, np.arange(len(answers))) == pytest.approx(share_interval(answers), abs=1e-4)


def test_photos_that_fail_together_count_as_fewer() -> None:
    answers = np.repeat(np.arange(20) % 4 > 0, 20)
    groups = np.repeat(np.arange(20), 20)
    # 20 senders, each right in all of its photos or in none, are 20 answers; one is lost with their mean, and three
    # more as 20 senders tell little of how they differ.
    assert share_interval(answers, groups) == pytest.approx(share_interval(np.arange(16) % 4 > 0), abs=0.03)


@pytest.mark.parametrize(("senders", "each"), [(4, 3), (5, 40), (90, 2), (150, 3)])
@pytest.mark.parametrize("alike", [0.9, 0.0])
def test_the_interval_of_groups_is_korn_and_graubards(senders: int, each: int, alike: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs the extra train")
    random = np.random.default_rng(senders)
    groups = np.repeat(np.arange(senders), each)
    answers = np.where(random.random(len(groups)) < alike, (groups % 3 > 0), random.random(len(groups)) < 0.7)
    count, share = len(groups), answers.mean()
    totals = np.bincount(groups, answers - share)
    variance = (totals**2).sum() * senders / (senders - 1) / count**2
    effect = max(1, variance / (share * (1 - share) / (count - 1)))
    freedom = stats.t.ppf(0.975, count - 1) / stats.t.ppf(0.975, senders - 1)
    counted = count / effect * freedom**2
    hits, misses = share * counted, (1 - share) * counted
    wanted = [stats.beta.ppf(0.025, hits, misses + 1), stats.beta.ppf(0.975, hits + 1, misses)]
    assert share_interval(answers, groups) == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize(("senders", "each"), [(3, 60), (10, 30)])
def test_the_interval_of_few_senders_is_wide_enough(senders: int, each: int) -> None:
    """Its lower end is above the truth in one case of 40, no matter how few senders there are."""
    random, above, cases = np.random.default_rng(0), 0, 600
    for _ in range(cases):
        shares = random.beta(0.9 * 9, 0.1 * 9, senders)  # on average 0.9, correlated by 0.1
        answers = random.random((senders, each)) < shares[:, None]
        above += share_interval(answers.ravel(), np.repeat(np.arange(senders), each))[0] > 0.9
    assert above / cases < 0.06
