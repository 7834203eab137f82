"""Which photo teaches, which one calibrates, and which one judges.

Two protocols. *random* is the published one: stratified by class. It flatters every model, because the photos of one
sender (same garment, same floor, same light) fall on both sides. *sender* is stratified too, but keeps all photos of
a sender on one side: it tells how the model does on photos of people it has never met.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Protocol = Literal["random", "sender"]

PARTS: Final = ("train", "validation", "test")
SEVENTHS: Final = 7
"""Of seven stratified folds, the first is the test part, the second the validation part, the rest the training part."""


class SplitError(ValueError):
    """The photos cannot be split as asked; the message says why and what to do."""


def assign_folds(
    labels: Sequence[str],
    senders: Sequence[str | None],
    protocol: Protocol,
    *,
    folds: int,
    seed: int,
    used: Sequence[str] | None = None,
) -> npt.NDArray[np.int64]:
    """Give each photo the number of the fold in which it is held out.

    Args:
        labels: each photo's class.
        senders: who took each photo; ``None`` makes the photo a sender of its own.
        protocol: ``"random"`` or ``"sender"``.
        folds: how many, at least 2.
        seed: the same seed gives the same folds.
        used: the classes that take part, by default all; of the others a photo is enough.

    Returns:
        ``int64 [N]``, each 0 to ``folds - 1``.

    Raises:
        SplitError: a class that takes part has fewer photos than three, or there are fewer senders than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    counts = Counter(label for label in labels if used is None or label in used)
    small = [f"{label} ({count})" for label, count in sorted(counts.items()) if count < len(PARTS)]
    if small:
        raise SplitError(f"too few photos to split (3 a class at least): {', '.join(small)}; add photos or drop it")
    if max(counts.values()) < folds:
        raise SplitError(f"the largest class has {max(counts.values())} photos, too few for {folds} folds; add photos")
    groups = number_senders(senders)
    if protocol == "sender":
        if all(sender is None for sender in senders):
            raise SplitError("the data name no senders; use the random protocol")
        if (count := int(groups.max()) + 1) < folds:
            raise SplitError(f"{count} senders cannot fill {folds} folds; use the random protocol")
    by_sender = protocol == "sender"
    splitter = (StratifiedGroupKFold if by_sender else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    places = np.zeros(len(labels))
    held_out = np.full(len(labels), -1, np.int64)
    with warnings.catch_warnings():
        # A class with fewer photos than folds is missing from some folds: sound here, and the card shows its counts.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        try:
            for number, (_, test) in enumerate(
                splitter.split(places, np.asarray(labels), groups if by_sender else None)
            ):
                held_out[test] = number
        except ValueError as error:
            raise SplitError(f"the photos cannot be split into {folds} folds: {error}") from error
    return held_out


def number_senders(senders: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Return the number of each photo's sender, ``int64 [N]``; a photo without one is a sender of its own."""
    names = [sender if sender is not None else f"\0{number}" for number, sender in enumerate(senders)]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def split(
    labels: Sequence[str],
    senders: Sequence[str | None],
    protocol: Protocol,
    *,
    seed: int,
    used: Sequence[str] | None = None,
) -> npt.NDArray[np.str_]:
    """Split photos into 5/7 training, 1/7 validation and 1/7 test.

    Arguments and errors are those of `assign_folds`.

    Returns:
        ``str [N]``, each one of `PARTS`.
    """
    held_out = assign_folds(labels, senders, protocol, folds=SEVENTHS, seed=seed, used=used)
    return np.select([held_out == 0, held_out == 1], ["test", "validation"], "train")
