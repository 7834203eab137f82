"""What finished cross-validations say of a model that all photos teach.

Such a model has no photos left that could judge it. Networks of the same recipe that each learned from the other
folds have judged every photo; from them come its temperature, the threshold of its promise, and its figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from clothing_classifier.runs.crossval import fold_file, gather, read_fold
from clothing_classifier.runs.folder import RunError, read_table
from clothing_classifier.training.splits import number_senders

if TYPE_CHECKING:
    from clothing_classifier.training.calibration import Calibration

_SAME: Final = ("approach", "backbone", "recipe", "sides", "resizing", "labels", "weights")
_LEFT_OUT: Final = ("reliability", "coverage", "temperatures", "cost", "training", "mean", "confusion", "subsets")
"""Of a cross-validation's figures, what its own folder and `results/` hold and a card does not need."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model takes from the cross-validations of its recipe.

    Attributes:
        calibration: that fits the out-of-fold logits of all photos best.
        promise: the threshold chosen on all photos; its ``share`` and ``measured_accuracy`` are those of thresholds
            that were chosen for each fold on the other folds, and ``interval`` is the latter's.
        metrics: the figures by protocol, ``"sender folds"`` and ``"random folds"``.
        sources: protocol, command and commit of each cross-validation.
    """

    calibration: Calibration
    promise: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    sources: list[dict[str, Any]]


def read_judgement(folders: Sequence[Path], config: dict[str, Any]) -> Judgement:
    """Read finished cross-validations of the recipe, weights and photos that ``config`` names.

    Temperature and threshold come from the one whose folds share no sender, if there is one: the photos that a model
    will meet are of people that it does not know.

    Args:
        folders: of ``clothing crossval``, one for each protocol.
        config: of the model's own run, as `record` gives it.

    Raises:
        RunError: a folder holds no finished cross-validation, or one of something else.
    """
    from clothing_classifier.evaluation.metrics import score_sure, share_interval
    from clothing_classifier.training.calibration import find_promised, fit_calibration, promise_across

    runs = sorted((_read(folder, config) for folder in folders), key=lambda run: run.protocol != "sender")
    protocols = [run.protocol for run in runs]
    if len(set(protocols)) < len(protocols):
        raise RunError(f"{folders[-1]}: is the second run with {protocols[-1]} folds; give one of each protocol")
    strictest = runs[0]
    given = strictest.probabilities, strictest.truth, strictest.folds
    promise = promise_across(*given)
    sure = find_promised(*given)
    right = (strictest.probabilities.argmax(1) == strictest.truth)[sure]
    interval = share_interval(right, strictest.senders[sure]) if sure.any() else None
    folds = strictest.metrics["protocol"]
    measured_on = f"{len(strictest.truth)} photos, each fold by thresholds chosen on the others; {folds}"
    return Judgement(
        fit_calibration(strictest.logits, strictest.residuals, strictest.truth),
        {**asdict(promise), "interval": interval, "measured_on": measured_on},
        {
            f"{run.protocol} folds": {
                **{name: value for name, value in run.metrics.items() if name not in _LEFT_OUT},
                "sure": {"share": promise.share, "accuracy": promise.measured_accuracy}
                if run is strictest
                else score_sure(
                    run.probabilities.max(1) >= promise.threshold, run.probabilities.argmax(1) == run.truth
                ),
            }
            for run in runs
        },
        [
            {"protocol": run.protocol, "commit": run.metrics["training"]["commit"]}
            | {"command": run.metrics["training"]["command"]}
            for run in runs
        ],
    )


@dataclass(frozen=True, slots=True)
class _Run:
    protocol: str
    logits: npt.NDArray[np.float32]
    residuals: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float64]
    truth: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    senders: npt.NDArray[np.int64]
    metrics: dict[str, Any]


def _read(folder: Path, wanted: dict[str, Any]) -> _Run:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
        rows = read_table(folder / "predictions.csv")
        labels = config["labels"]
        folds = np.array([int(row["fold"]) for row in rows])
        truth = np.array([labels.index(row["label"]) for row in rows])
        probabilities = np.array([[float(row[label]) for label in labels] for row in rows])
        found = [read_fold(fold_file(folder, fold)) for fold in range(config["folds"])]
        logits, residuals = (gather(found, folds, name) for name in ("logits", "residuals"))
        senders = number_senders([row["sender"] or None for row in rows])
        run = _Run(config["protocol"], logits, residuals, probabilities, truth, folds, senders, metrics)
    except FileNotFoundError as error:
        raise RunError(
            f"{folder}: holds no finished cross-validation ({Path(error.filename).name} is missing); "
            "finish it with `clothing crossval`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise RunError(f"{folder}: this cross-validation cannot be read ({error}); run it again") from error
    own = json.loads(json.dumps(wanted))
    different = [name for name in _SAME if config.get(name) != own.get(name)]
    if config["data"].get("digest") != own["data"]["digest"]:
        different.append("data")
    if different:
        raise RunError(
            f"{folder}: is the cross-validation of another model (it differs in: {', '.join(different)}); "
            "what it measured says nothing of this one"
        )
    return run
