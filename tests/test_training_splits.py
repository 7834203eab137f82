from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn", reason="needs the extra train")

from clothing_classifier.training.splits import PARTS, Protocol, SplitError, assign_folds, split


def make_data(seed: int, photos: int = 700) -> tuple[list[str], list[str | None]]:
    random = np.random.default_rng(seed)
    labels = random.choice(["a", "b", "c"], photos, p=[0.7, 0.25, 0.05]).tolist()
    senders = [str(number) for number in random.zipf(1.6, photos).clip(max=60)]
    return labels, list(senders)


@given(seed=st.integers(0, 1000), protocol=st.sampled_from(["random", "sender"]), folds=st.integers(2, 7))
@settings(max_examples=25, deadline=None)
def test_every_photo_is_held_out_once_and_the_same_seed_gives_the_same_folds(
    seed: int, protocol: Protocol, folds: int
) -> None:
    labels, senders = make_data(seed)
    held_out = assign_folds(labels, senders, protocol, folds=folds, seed=seed)
    assert set(held_out.tolist()) <= set(range(folds))
    assert (held_out == assign_folds(labels, senders, protocol, folds=folds, seed=seed)).all()
    if protocol == "sender":
        sides: dict[str | None, set[int]] = {}
        for sender, fold in zip(senders, held_out.tolist(), strict=True):
            sides.setdefault(sender, set()).add(fold)
        assert all(len(folds_of) == 1 for folds_of in sides.values()), "a sender is on one side only"
    else:
        for label, count in Counter(labels).items():
            by_fold = np.bincount(held_out[np.array(labels) == label], minlength=folds)
            assert np.abs(by_fold - count / folds).max() < 1.01, "each class is spread evenly"


def test_split_gives_five_sevenths_for_training() -> None:
    labels, senders = make_data(3)
    parts = Counter(split(labels, senders, "random", seed=0).tolist())
    assert parts == {"train": 500, "validation": 100, "test": 100}
    assert set(split(labels, senders, "sender", seed=0).tolist()) == set(PARTS)


def test_the_first_fold_is_the_test_part_and_the_second_the_validation_part() -> None:
    labels, senders = make_data(3)
    held_out = assign_folds(labels, senders, "random", folds=7, seed=5)
    wanted = [("test", "validation")[fold] if fold < 2 else "train" for fold in held_out]
    assert split(labels, senders, "random", seed=5).tolist() == wanted
    assert split(labels, senders, "random", seed=6).tolist() != wanted


def test_as_many_photos_of_a_class_or_senders_as_folds_are_enough() -> None:
    labels, senders = ["a"] * 7 + ["b"] * 7, [str(number % 7) for number in range(14)]
    for protocol in ("random", "sender"):
        held_out = assign_folds(labels, senders, protocol, folds=7, seed=0)
        assert (np.bincount(held_out) == 2).all()


def test_a_photo_without_a_sender_is_a_sender_of_its_own() -> None:
    labels = ["a", "b"] * 50
    senders: list[str | None] = ["one"] * 20 + [None] * 80
    held_out = assign_folds(labels, senders, "sender", folds=4, seed=0)
    assert len(set(held_out[:20].tolist())) == 1
    assert len(set(held_out[20:].tolist())) == 4


@pytest.mark.parametrize(
    ("labels", "senders", "protocol", "message"),
    [
        (["a", "a", "a", "b", "b"], [None] * 5, "random", r"too few photos .*: b \(2\)"),
        (["a", "b"] * 9, [None] * 18, "sender", "name no senders"),
        (["a", "b"] * 5, [None] * 10, "random", "the largest class has 5 photos, too few for 7 folds; add photos"),
        (["a", "b"] * 9, ["x", "y"] * 9, "sender", "2 senders cannot fill 7 folds"),
    ],
)
def test_data_that_cannot_be_split_are_explained(
    labels: list[str], senders: list[str | None], protocol: Protocol, message: str
) -> None:
    with pytest.raises(SplitError, match=message):
        split(labels, senders, protocol, seed=0)


@pytest.mark.parametrize("protocol", ["random", "sender"])
def test_nothing_is_asked_of_classes_that_take_no_part(protocol: Protocol) -> None:
    labels, senders = [*"ab" * 20, "c"], [str(number // 2) for number in range(41)]
    with pytest.raises(SplitError, match=r"too few photos .*: c \(1\)"):
        assign_folds(labels, senders, protocol, folds=5, seed=0)
    held_out = assign_folds(labels, senders, protocol, folds=5, seed=0, used=("a", "b"))
    assert [set(held_out[number:40:2].tolist()) for number in (0, 1)] == [{*range(5)}] * 2
    assert set(split(labels, senders, protocol, seed=0, used=("a", "b")).tolist()) == set(PARTS)
