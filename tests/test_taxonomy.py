from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clothing_classifier.taxonomy import CLASSES, canonical_label, match_label


@pytest.mark.parametrize("name", ["t-shirt", "Tshirt", "T_SHIRT", "t shirt", "tee", "T-Shirt"])
def test_any_edition_means_the_same(name: str) -> None:
    assert match_label(name, CLASSES) == canonical_label(name) == "T-Shirt"


@pytest.mark.parametrize(
    ("name", "labels", "found"),
    [
        ("kilt", ("Kilt", "sari"), "Kilt"),
        ("Röcke", (unicodedata.normalize("NFD", "Röcke"), "sari"), unicodedata.normalize("NFD", "Röcke")),
        ("KILT", ("Kilt", "kilt"), None),
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


@given(st.lists(st.text(max_size=5), min_size=1, unique=True), st.text(max_size=5))
def test_a_class_is_found_by_its_own_name_and_no_other_is_made_up(labels: list[str], name: str) -> None:
    assert [match_label(label, labels) for label in labels] == labels
    assert match_label(name, labels) in {None, *labels}
