from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clothing_classifier.taxonomy import CLASSES, canonical_label, fold_label, is_class_name, match_label


@pytest.mark.parametrize("name", ["t-shirt", "Tshirt", "T_SHIRT", "t shirt", "tee", "T-Shirt"])
def test_any_edition_means_the_same(name: str) -> None:
    assert match_label(name, CLASSES) == canonical_label(name) == "T-Shirt"


@pytest.mark.parametrize(
    ("name", "labels", "found"),
    [
        ("kilt", ("Kilt", "sari"), "Kilt"),
        ("Röcke", (unicodedata.normalize("NFD", "Röcke"), "sari"), unicodedata.normalize("NFD", "Röcke")),
        ("KILT", ("Kilt", "kilt"), None),
        ("c++", ("C++", "C#"), "C++"),
        ("zori\u00a0 X", ("Zori x", "Zorix"), "Zori x"),
        ("☀️", ("❤️", "Top"), None),
        ("kilt", ("Kilt", "kilt"), "kilt"),
        ("trousers", ("pants", "Top"), "pants"),
        ("tee", ("t-shirt", "T-Shirt"), None),
        ("Other", ("Other", "Top"), "Other"),
        ("Other", CLASSES, None),
        ("sofa", CLASSES, None),
        ("का", ("की", "कु"), None),
        ("?", ("!", "Top"), None),
        ("", CLASSES, None),
    ],
)
def test_a_models_own_classes_are_found_by_name(name: str, labels: tuple[str, ...], found: str | None) -> None:
    assert match_label(name, labels) == found


@pytest.mark.parametrize("name", ["Kilt", "نیم\u200cتنه", "👩\u200d🎤", "Zori\u00a0x", "का"])
def test_names_of_all_scripts_may_be_classes(name: str) -> None:
    assert is_class_name(name)


@pytest.mark.parametrize(
    "name", ["", " ", "\u00a0", "\u200d", "\u200c \u200d", "a\nb", "a\tb", "\x1b[2J", "a\u200b", "\u202eb", "\udc80"]
)
def test_what_cannot_be_seen_or_steers_a_terminal_is_no_name(name: str) -> None:
    assert not is_class_name(name)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Röcke", unicodedata.normalize("NFD", "RÖCKE"), True),
        ("Zori x", " zori\u00a0\u00a0X", True),
        ("Tie", "T\u200die", True),
        ("T-Shirt", "T Shirt", False),
        ("C++", "C#", False),
        ("का", "की", False),
    ],
)
def test_spellings_of_one_label_are_told_from_other_labels(one: str, other: str, same: bool) -> None:
    assert (fold_label(one) == fold_label(other)) is same
    if same:
        assert match_label(one, (other, "Top")) == other


@given(st.lists(st.text(max_size=5), min_size=1, unique=True), st.text(max_size=5))
def test_a_class_is_found_by_its_own_name_and_no_other_is_made_up(labels: list[str], name: str) -> None:
    assert [match_label(label, labels) for label in labels] == labels
    assert match_label(name, labels) in {None, *labels}
