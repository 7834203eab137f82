"""The labels of the *Clothing dataset* and the names that its editions use for them.

The 20 raw labels are those of ``images.csv`` (Grigorev, 2020, https://github.com/alexeygrigorev/clothing-dataset).
Three of them name no garment and are dropped, as the published comparison does; 17 classes remain. Everything
here is matched by *name*: a class's position in a list or a folder never decides what it means.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

CLASSES: Final[tuple[str, ...]] = (
    "Blazer",
    "Blouse",
    "Body",
    "Dress",
    "Hat",
    "Hoodie",
    "Longsleeve",
    "Outwear",
    "Pants",
    "Polo",
    "Shirt",
    "Shoes",
    "Shorts",
    "Skirt",
    "T-Shirt",
    "Top",
    "Undershirt",
)
"""The 17 garment classes, in alphabetical order."""

DROPPED_LABELS: Final[dict[str, str]] = {
    "Not sure": "the photographer did not know what it is",
    "Other": "a garment or thing that none of the classes names",
    "Skip": "the photo is not usable",
}
"""Raw labels that name no garment, and why each is dropped."""

RAW_LABELS: Final[tuple[str, ...]] = tuple(sorted((*CLASSES, *DROPPED_LABELS)))
"""All 20 labels that occur in ``images.csv``."""

TOP_10: Final[tuple[str, ...]] = (
    "Dress",
    "Hat",
    "Longsleeve",
    "Outwear",
    "Pants",
    "Shirt",
    "Shoes",
    "Shorts",
    "Skirt",
    "T-Shirt",
)
"""The ten most frequent classes, which are also the classes of the ten-class subset."""

_ALIASES: Final[dict[str, str]] = {
    # The ten-class subset (https://github.com/alexeygrigorev/clothing-dataset-small) names its folders in lower case.
    "outerwear": "Outwear",
    "tshirt": "T-Shirt",
    "tee": "T-Shirt",
    "longsleeves": "Longsleeve",
    "longsleeveshirt": "Longsleeve",
    "poloshirt": "Polo",
    "trousers": "Pants",
    "bodysuit": "Body",
}


_JOINERS: Final = "\u200c\u200d"  # zero-width; without them Persian words and many emoji look different


def is_printable(text: str) -> bool:
    r"""Say whether a terminal shows a text on one line and is not steered by it.

    Beside what Python calls printable, that holds for the no-break space and the zero-width joiners.

    >>> is_printable("نیم\u200cتنه"), is_printable("40\u00a0%"), is_printable("a\nb"), is_printable("\u202e")
    (True, True, False, False)
    """
    return all(c.isprintable() or c == "\u00a0" or c in _JOINERS for c in text)


def escape_unprintable(text: str) -> str:
    r"""Return a text in which all that `is_printable` refuses is written as an escape.

    >>> escape_unprintable("a\nb")
    'a\\nb'
    """
    return "".join(c if is_printable(c) else c.encode("unicode_escape").decode() for c in text)


def is_class_name(name: str) -> bool:
    """Say whether a class may be called so: it can be printed, and something can be seen."""
    return is_printable(name) and fold_label(name) != ""


def fold_label(name: str) -> str:
    """Return what all spellings of one label share: they differ in case, white space, Unicode's form or joiners only.

    >>> fold_label(" Zori  X") == fold_label("zori x")
    True
    """
    seen = "".join(c for c in name if c not in _JOINERS)
    return " ".join(unicodedata.normalize("NFC", seen).casefold().split())


def _key(name: str) -> str:
    # Without its marks, a word of many scripts is another word; without letters, marks mean nothing.
    key = "".join(c for c in fold_label(name) if c.isalnum() or unicodedata.category(c).startswith("M"))
    return key if any(map(str.isalnum, key)) else ""


_BY_KEY: Final[dict[str, str]] = {_key(label): label for label in RAW_LABELS} | _ALIASES


def canonical_label(name: str) -> str | None:
    """Return the raw label that ``name`` stands for, or ``None`` if it stands for none.

    Case, spaces, hyphens and underscores do not count, so the subset's ``t-shirt`` and Kaggle's ``T-Shirt`` are one.

    >>> canonical_label("t-shirt"), canonical_label("LONG_SLEEVE"), canonical_label("sofa")
    ('T-Shirt', 'Longsleeve', None)
    """
    return _BY_KEY.get(_key(name))


def match_label(name: str, labels: Sequence[str]) -> str | None:
    """Return the one of a model's ``labels`` that ``name`` stands for, or ``None`` if it stands for none of them.

    The same spelling goes first, then another one of the same label, then one that differs in spaces, hyphens and other
    signs, then the names that other editions use.
    Where several labels are as near, none is meant.

    >>> labels = ("T-Shirt", "Outwear", "Kilt")
    >>> match_label("tee", labels), match_label("outerwear", labels), match_label("kilt", labels)
    ('T-Shirt', 'Outwear', 'Kilt')
    >>> match_label("Other", labels) is None
    True
    """
    if name in labels:
        return name
    spellings: tuple[Callable[[str], str | None], ...] = (fold_label, _key, canonical_label)
    for spell in spellings:
        wanted = spell(name)
        found = [label for label in labels if spell(label) == wanted] if wanted else []
        if len(found) == 1:
            return found[0]
    return None
