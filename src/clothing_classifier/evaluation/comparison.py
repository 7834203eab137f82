"""Cross-validation runs side by side: reading them, the tables, and which differences are more than chance.

`read_run` reads the folder that ``clothing crossval`` leaves behind. The figures are taken from its ``metrics.json``
and not computed again; only what takes several runs at once is computed here.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clothing_classifier.dataset.manifest import ERRORS
from clothing_classifier.evaluation.metrics import confusion, resample
from clothing_classifier.resizing import Resizing
from clothing_classifier.taxonomy import CLASSES, TOP_10, escape_unprintable

SCORES: Final = {"weighted_f1": "weighted F1", "macro_f1": "macro F1", "accuracy": "accuracy"}
"""The three scores of every run, in the order of their weight here, and what people call them."""

PROTOCOLS: Final = {"random": "random folds", "sender": "sender folds"}
"""How photos came to their folds: by chance within each class, or with no sender in two folds."""

_FORMAT: Final = 1

_DOUBTED: Final = 0.8
"""How probable another class than the label must be, the mean over the approaches that name it."""


class ComparisonError(Exception):
    """A run cannot be compared. The message names the file, the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Published:
    """Figures that somebody else reports.

    Attributes:
        model: the model, in words.
        weights: what it was pretrained on, ``"none"``, or empty where the source does not say.
        classes: how many classes it tells apart.
        split: what it was measured on, in words.
        source: who reports it.
        address: where.
        figures: those of `SCORES` that are reported, 0 to 1.
    """

    model: str
    weights: str
    classes: int
    split: str
    source: str
    address: str
    figures: Mapping[str, float]


_STARTED_FROM: Final = (
    "MohamedSebaie/Tahaluf-Deep-Learning-Engineer-Task",
    "https://github.com/MohamedSebaie/Tahaluf-Deep-Learning-Engineer-Task",
)
_BOOKCAMP: Final = ("Machine Learning Bookcamp, chapter 7", "https://github.com/alexeygrigorev/mlbookcamp-code")
_GOUDA: Final = (
    "SamirGouda/YOLOX-Clothing_Classifier",
    "https://github.com/SamirGouda/YOLOX-Clothing_Classifier",
)
_FADL: Final = ("AhmedHossamFadl/Tahaluf_ML_Task", "https://github.com/AhmedHossamFadl/Tahaluf_ML_Task")

PUBLISHED: Final = (
    Published("ConvNeXt-Tiny, frozen", "ImageNet", 17, "5 folds", *_STARTED_FROM, {"weighted_f1": 0.88}),
    Published("ConvNeXt-Tiny, frozen", "ImageNet", 17, "one split", *_STARTED_FROM, {"weighted_f1": 0.90}),
    Published("custom CNN", "none", 17, "one split", *_STARTED_FROM, {"weighted_f1": 0.66}),
    Published("ResNet50", "not stated", 17, "one split", *_STARTED_FROM, {"weighted_f1": 0.61}),
    Published("ResNet50", "not stated", 10, "one split", *_STARTED_FROM, {"weighted_f1": 0.70}),
    Published("Xception", "ImageNet", 10, "the subset's test folder", *_BOOKCAMP, {"accuracy": 0.903}),
    Published(
        "ResNet50",
        "ImageNet",
        10,
        "the subset's test folder",
        *_GOUDA,
        {"weighted_f1": 0.888, "macro_f1": 0.857, "accuracy": 0.884},
    ),
    Published(
        "MobileNetV3-small",
        "ImageNet",
        10,
        "the subset's test folder",
        *_GOUDA,
        {"weighted_f1": 0.853, "macro_f1": 0.821, "accuracy": 0.852},
    ),
    Published("ResNet18", "ImageNet", 18, "random", *_FADL, {"accuracy": 0.878}),
)
"""What others report of this dataset. None says that it kept a sender's photos on one side of its folds or split."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one run was and what it measured: the content of its ``config.json`` and ``metrics.json``.

    Attributes:
        config: what decides the run's outcome.
        metrics: its figures; only the three scores are sure to be there.
    """

    config: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def approach(self) -> str:
        """The approach's name."""
        return str(self.config["approach"])

    @property
    def protocol(self) -> str:
        """``"random"`` or ``"sender"``."""
        return str(self.config["protocol"])

    @property
    def digest(self) -> str:
        """The digest of the data that the run used."""
        return str(get(self.config, "data", "digest") or "")

    @property
    def weights(self) -> str:
        """Where the weights came from, in short: ``"none"``, ``"tf_efficientnet_b0"``."""
        source = str(get(self.config, "weights", "source") or "")
        return source.removeprefix("file: ").removeprefix("hub: ").removesuffix(".safetensors")

    @property
    def command(self) -> str | None:
        """The command that made the run."""
        found = get(self.metrics, "training", "command")
        return found if isinstance(found, str) else None

    def figure(self, *keys: str | int) -> float | None:
        """Return a figure of `metrics`, or ``None`` where the run does not have it."""
        return number(get(self.metrics, *keys))

    def top_10(self, name: str) -> float | None:
        """Return a score on the photos of the ten most frequent classes, or ``None`` where it was not measured."""
        if set(self.config.get("labels", ())) == set(TOP_10):
            return self.figure(name)
        return self.figure("subsets", "top10", name)


def published_beside(results: Sequence[Result]) -> tuple[Published, ...]:
    """Return what others report of this dataset, where a run is of its classes or the ten most frequent of them.

    Beside runs of a person's own classes these figures would say nothing.
    """
    known = (set(CLASSES), set(TOP_10))
    return PUBLISHED if any(set(result.config.get("labels", ())) in known for result in results) else ()


@dataclass(frozen=True, slots=True)
class Curve:
    """One epoch of one fold, as ``curves.csv`` has it.

    Attributes:
        fold: the fold that was held out.
        epoch: from 1.
        train_loss: on the photos that taught.
        validation_loss: on those held out; shown, never chosen on.
        validation_accuracy: likewise, 0 to 1.
    """

    fold: int
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, eq=False)
class Run:
    """A cross-validation run, read from its folder.

    Attributes:
        folder: where it lies.
        result: its configuration and figures.
        labels: the classes' names, in the order of the probabilities.
        paths: the photos, relative to the data's folder.
        senders: who sent each photo; empty where nobody knows.
        truth: class numbers, ``int64 [N]``.
        predicted: class numbers, ``int64 [N]``, each by the model that had not seen the photo.
        folds: which fold each photo was held out with, ``int64 [N]``.
        probabilities: ``float32 [N, classes]``, of the same models.
        curves: the epochs of all folds; none where nothing was fitted by epochs.
        evidence: ``[N, 2, h, w]``, where in the network's input the model saw the predicted class and the true one, in
            logits; ``None`` where the run has no such file.
    """

    folder: Path
    result: Result
    labels: tuple[str, ...]
    paths: tuple[str, ...]
    senders: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    curves: tuple[Curve, ...] = ()
    evidence: npt.NDArray[np.float16] | None = None

    @cached_property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of each photo's predicted class, ``float32 [N]``."""
        chosen: npt.NDArray[np.float32] = self.probabilities[np.arange(len(self.truth)), self.predicted]
        return chosen

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """The confusion matrix, ``int64 [classes, classes]``, rows true."""
        return confusion(self.truth, self.predicted, len(self.labels))

    @cached_property
    def resizing(self) -> Resizing:
        """How photos became the network's input, which is what `evidence` lies over."""
        return Resizing.from_dict(self.result.config["resizing"])

    def same_task(self, other: Run) -> bool:
        """Tell whether two runs answered the same question: the same photos with the same labels."""
        return self.paths == other.paths and self.labels == other.labels and bool((self.truth == other.truth).all())


def number(value: object) -> float | None:
    """Return a finite number as it is, and ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None  # of whole numbers, JSON may hold some that are beyond all floats
    return value


def get(values: object, *keys: str | int) -> object:
    """Return what lies below the keys in nested mappings and lists, or ``None`` where there is no such place."""
    for key in keys:
        try:
            values = values[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def read_run(folder: Path) -> Run:
    """Read a finished run.

    Args:
        folder: what ``clothing crossval --out`` wrote.

    Returns:
        The run; `Run.evidence` is mapped from its file, not read.

    Raises:
        ComparisonError: a file is missing, damaged, or does not belong to the others.
    """
    result = read_result(folder)
    labels = tuple(result.config["labels"])
    file = folder / "predictions.csv"
    header, rows = _read_table(file, result)
    if header != ["path", "label", "sender", "fold", "predicted", *labels]:
        raise ComparisonError(f"{file}: its columns are not those of config.json's labels; {_again(result)}")
    if len({row[0] for row in rows}) != len(rows):
        raise ComparisonError(f"{file}: has a photo twice; {_again(result)}")
    index = {label: i for i, label in enumerate(labels)}
    try:
        truth = np.array([index[row[1]] for row in rows], np.int64)
        predicted = np.array([index[row[4]] for row in rows], np.int64)
        folds = np.array([int(row[3]) for row in rows], np.int64)
        probabilities = np.array([row[5:] for row in rows], np.float32).reshape(len(rows), len(labels))
    except (KeyError, ValueError, OverflowError) as error:
        raise ComparisonError(f"{file}: is damaged ({error}); {_again(result)}") from error
    if not (np.isfinite(probabilities).all() and (np.abs(probabilities.sum(1) - 1) < 0.01).all()):
        raise ComparisonError(f"{file}: has a row whose probabilities do not add up to 1; {_again(result)}")
    right = float((truth == predicted).mean()) if len(rows) else -1.0
    if result.figure("photos") != len(rows) or abs(right - result.metrics["accuracy"]) > 0.0006:
        raise ComparisonError(f"{file}: does not belong to the metrics.json beside it; {_again(result)}")
    try:
        Resizing.from_dict(result.config["resizing"])
    except (KeyError, ValueError) as error:
        raise ComparisonError(f"{folder / 'config.json'}: has no resizing; {_again(result)}") from error
    return Run(
        folder=folder,
        result=result,
        labels=labels,
        paths=tuple(row[0] for row in rows),
        senders=tuple(row[2] for row in rows),
        truth=truth,
        predicted=predicted,
        folds=folds,
        probabilities=probabilities,
        curves=tuple(_read_curves(folder / "curves.csv", result)),
        evidence=_read_evidence(folder / "evidence.npy", len(rows), result),
    )


def read_result(folder: Path) -> Result:
    """Read a run's configuration and figures alone.

    Args:
        folder: what ``clothing crossval --out`` wrote.

    Returns:
        Both, as they are in the files.

    Raises:
        ComparisonError: one of the two files is missing or damaged.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ComparisonError(f"{folder}: is not a run of `clothing crossval`, there is no config.json in it")
    config = _read_json(file)
    labels = config.get("labels")
    if "protocol" not in config:
        raise ComparisonError(
            f"{folder}: is not a run of `clothing crossval`, perhaps one of `clothing train`; leave it out"
        )
    if config.get("format") != _FORMAT or str(config["protocol"]) not in PROTOCOLS or not config.get("approach"):
        raise ComparisonError(f"{file}: is not a cross-validation run's of this version; run `clothing crossval` again")
    if not isinstance(labels, list) or not all(isinstance(v, str) for v in labels) or len(set(labels)) != len(labels):
        raise ComparisonError(f"{file}: its labels are not a list of different names; run `clothing crossval` again")
    file = folder / "metrics.json"
    if not file.is_file():
        again = _again(Result(config, {}))
        raise ComparisonError(f"{folder}: is not finished, there is no metrics.json in it; {again}")
    result = Result(config, _read_json(file))
    for name in SCORES:
        value = result.figure(name)
        if value is None or not 0 <= value <= 1:
            raise ComparisonError(f"{file}: its {name} is not a number from 0 to 1; {_again(result)}")
    return result


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ComparisonError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ComparisonError(f"{file}: is damaged ({error}); repeat the run in a new folder") from error
    if not isinstance(content, dict):
        raise ComparisonError(f"{file}: is damaged (not an object); repeat the run in a new folder")
    return content


def _read_table(file: Path, result: Result) -> tuple[list[str], list[list[str]]]:
    try:
        with file.open(encoding="utf-8", errors=ERRORS, newline="") as opened:
            header, *rows = csv.reader(opened, strict=True)
    except FileNotFoundError as error:
        raise ComparisonError(f"{file}: is missing, the run is not finished; {_again(result)}") from error
    except OSError as error:
        raise ComparisonError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, csv.Error) as error:
        raise ComparisonError(f"{file}: is damaged ({error}); {_again(result)}") from error
    if any(len(row) != len(header) for row in rows):
        raise ComparisonError(f"{file}: is damaged (rows of different lengths); {_again(result)}")
    return header, rows


def _read_curves(file: Path, result: Result) -> Iterator[Curve]:
    if not file.exists():
        return
    header, rows = _read_table(file, result)
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        try:
            yield Curve(
                fold=int(cells["fold"]),
                epoch=int(cells["epoch"]),
                train_loss=float(cells["train_loss"]),
                validation_loss=float(cells["validation_loss"]),
                validation_accuracy=float(cells["validation_accuracy"]),
            )
        except (KeyError, ValueError) as error:
            raise ComparisonError(f"{file}: is damaged ({error}); {_again(result)}") from error


def _read_evidence(file: Path, photos: int, result: Result) -> npt.NDArray[np.float16] | None:
    if not file.exists():
        return None
    try:
        evidence = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the header is read as Python, so damage there may raise almost anything
        raise ComparisonError(f"{file}: is damaged ({error}); {_again(result)}") from error
    if evidence.dtype != np.float16 or evidence.ndim != 4 or evidence.shape[:2] != (photos, 2) or 0 in evidence.shape:
        raise ComparisonError(
            f"{file}: holds {evidence.dtype} {list(evidence.shape)}, not float16 [{photos}, 2, height, width]; "
            f"{_again(result)}"
        )
    return np.asarray(evidence)


def _again(result: Result) -> str:
    return "repeat its command" + (f": {result.command}" if result.command else " to finish or mend it")


def name_runs(results: Sequence[Result]) -> list[str]:
    """Return what to call each run where the protocol is said elsewhere: its approach, and what sets it apart.

    Runs of an approach that began with other weights never share a name, whatever their protocols.

    >>> config = {"approach": "a", "protocol": "random", "weights": {"source": "none"}}
    >>> other = {**config, "weights": {"source": "file: b.safetensors"}}
    >>> name_runs([Result(config, {}), Result(other, {}), Result(other, {})])
    ['a (none)', 'a (b)', 'a (b, 2)']
    """
    weights: dict[str, set[str]] = {}
    for result in results:
        weights.setdefault(result.approach, set()).add(result.weights)
    seen: Counter[tuple[str, str, str]] = Counter()
    names = []
    for result in results:
        key = (result.approach, result.protocol, result.weights)
        seen[key] += 1
        marks = [result.weights] if len(weights[result.approach]) > 1 else []
        marks += [str(seen[key])] if seen[key] > 1 else []
        names.append(f"{result.approach} ({', '.join(marks)})" if marks else result.approach)
    return names


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one run is than another on the same photos.

    Attributes:
        value: the first run's score less the second one's.
        low: where the 95 % interval of the difference begins.
        high: where it ends.
    """

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0: other photos would hardly turn the order round."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Contest:
    """Runs that answered the same question, and what chance does to their scores.

    Attributes:
        runs: runs of the same photos and classes.
        resamples: score's name → ``float64 [runs, resamples]``, each column from the same drawn photos.
        units: how many independent units were drawn from: senders, and the photos whose sender nobody knows.
        by_sender: whether those are senders.
    """

    runs: tuple[Run, ...]
    resamples: Mapping[str, npt.NDArray[np.float64]]
    units: int
    by_sender: bool

    def difference(self, first: Run, second: Run, name: str = "weighted_f1") -> Difference:
        """Return how much better the first run's score is than the second one's, with a paired bootstrap interval."""
        rows = self.resamples[name]
        paired = rows[self.runs.index(first)] - rows[self.runs.index(second)]
        low, high = np.quantile(paired, (0.025, 0.975))
        value = first.result.metrics[name] - second.result.metrics[name]
        return Difference(value, float(low), float(high))

    def ranked(self, protocol: str) -> list[Run]:
        """Return the runs of a protocol, the best weighted F1 first."""
        runs = [run for run in self.runs if run.result.protocol == protocol]
        return sorted(runs, key=lambda run: -run.result.metrics["weighted_f1"])


def contest(runs: Sequence[Run]) -> Contest:
    """Let the runs that answered the same question meet on the same resamples of its photos.

    Photos of one sender are alike, so whole senders are drawn where they are known (Efron and Tibshirani, 1993,
    chapter 8); every run is scored on every draw, so that what makes a draw hard for all of them cancels out.

    Args:
        runs: at least one. The largest group of runs with the same photos and classes takes part, the others do not.

    Returns:
        The group and its resampled scores.

    Raises:
        ValueError: there are no runs.
    """
    if not runs:
        raise ValueError("there are no runs to compare")
    groups: list[list[Run]] = []
    for run in runs:
        home = next((group for group in groups if run.same_task(group[0])), None)
        if home is None:
            groups.append([run])
        else:
            home.append(run)
    group = max(groups, key=lambda group: (len(group), len(group[0].paths)))
    first = group[0]
    who = zip(first.senders, first.paths, strict=True)
    names = [f"sender {sender}" if sender else f"photo {path}" for sender, path in who]
    drawn = [resample(run.truth, run.predicted, len(run.labels), names) for run in group]
    resamples = {name: np.stack([scores[name] for scores in drawn]) for name in SCORES}
    return Contest(tuple(group), resamples, len(set(names)), any(first.senders))


@dataclass(frozen=True, slots=True)
class Doubt:
    """A photo whose label looks wrong.

    Attributes:
        path: the photo.
        label: what it is labelled.
        suggested: what the runs say instead.
        probability: of the suggested class, the mean over the runs of the approaches that say so.
        agreeing: how many approaches say so.
        asked: how many approaches were asked.
    """

    path: str
    label: str
    suggested: str
    probability: float
    agreeing: int
    asked: int


def find_doubts(runs: Sequence[Run]) -> list[Doubt]:
    """Find photos that models which never saw them agree on, against the label.

    Args:
        runs: runs in which the photos may occur; those of one approach count as one.

    Returns:
        The photos for which at least two approaches, and at least two thirds of those that were asked, name the same
        other class in all their runs; first those that most approaches agree on, then the most probable.
    """
    photos: dict[tuple[str, str], list[tuple[Run, int]]] = {}
    for run in runs:
        for i, path in enumerate(run.paths):
            photos.setdefault((path, run.labels[run.truth[i]]), []).append((run, i))
    found = []
    for (path, label), asked in photos.items():
        answers: dict[str, set[str]] = {}
        for run, i in asked:
            answers.setdefault(run.result.approach, set()).add(run.labels[run.predicted[i]])
        votes = Counter(next(iter(said)) for said in answers.values() if len(said) == 1)
        if not votes:
            continue
        suggested, agreeing = votes.most_common(1)[0]  # of as many votes for another, neither would be enough
        if suggested == label or agreeing < max(2, math.ceil(2 / 3 * len(answers))):
            continue
        heard = [run.confidence[i] for run, i in asked if answers[run.result.approach] == {suggested}]
        probability = float(np.mean(heard))
        if probability >= _DOUBTED:
            found.append(Doubt(path, label, suggested, probability, agreeing, len(answers)))
    return sorted(found, key=lambda doubt: (-doubt.agreeing / doubt.asked, -doubt.probability, doubt.path))


def full_table(results: Sequence[Result]) -> str:
    """Return everything that a run is compared by, as a Markdown table.

    Args:
        results: the rows, in their order; others' figures of the same classes have rows of their own below.

    Returns:
        The table; a figure that a run does not have is an empty cell. Runs of other data than the first run's carry
        the beginning of their data's digest.
    """
    heads = ["approach", "weights", "protocol", "weighted F1, mean ± std over folds", "weighted F1, pooled (95 %)"]
    heads += [
        "macro F1",
        "accuracy",
        "top-10 weighted F1",
        "parameters",
        "multiply-adds",
        "size, float32",
        "ms a photo",
    ]
    heads += ["training time"]
    rows = []
    for name, result in zip(name_runs(results), results, strict=True):
        cells = [name + _mark_data(result, results[0])]
        cells += [result.weights, PROTOCOLS[result.protocol], spread(result, "weighted_f1")]
        cells += [with_interval(result, "weighted_f1"), with_interval(result, "macro_f1")]
        cells += [with_interval(result, "accuracy"), decimals(result.top_10("weighted_f1")), *costs(result).values()]
        rows.append([escape_markdown(cell) for cell in cells])
    for row in published_beside(results):
        f1 = decimals(row.figures.get("weighted_f1"), 2)
        ten = row.classes == 10
        cells = [f"{row.model}, {row.classes} classes ([published]({row.address}))", row.weights, row.split, ""]
        cells += ["" if ten else f1, decimals(row.figures.get("macro_f1")), decimals(row.figures.get("accuracy"))]
        rows.append([*cells, f1 if ten else "", *[""] * 5])
    return _markdown(heads, rows)


def table(
    results: Sequence[Result],
    *,
    order: Sequence[str] = (),
    missing: Mapping[str, str] | None = None,
    links: Mapping[int, str] | None = None,
) -> str:
    """Return the short table for a README, in Markdown.

    Args:
        results: the measured rows; others' weighted F1 of the same classes have rows of their own at the end.
        order: approaches in the order of their rows; those it does not name come last.
        missing: approach without a run → why. It gets a row of empty cells and a note below the table.
        links: place in ``results`` → what the approach's name shall link to.

    Returns:
        The table, and the notes below it where there are some; no line end after the last line. Runs of other data than
        the first one's are marked as in `full_table`.
    """
    missing = missing or {}
    places = {name: i for i, name in enumerate(dict.fromkeys((*order, *(r.approach for r in results), *missing)))}
    notes = list(dict.fromkeys(missing.values()))

    def mark(note: str) -> str:
        return f"<sup>{notes.index(note) + 1}</sup>"

    rows: list[tuple[int, list[str]]] = []
    for i, (name, result) in enumerate(zip(name_runs(results), results, strict=True)):
        shown = f"`{escape_markdown(name).replace('`', '')}`"
        if links is not None and i in links:
            shown = f"[{shown}]({links[i]})"
        shown += escape_markdown(_mark_data(result, results[0]))
        cells = [shown, escape_markdown(result.weights), result.protocol]
        rows.append((places[result.approach], [*cells, *(with_interval(result, figure) for figure in SCORES)]))
    for name, reason in missing.items():
        rows.append((places[name], [f"`{escape_markdown(name)}` {mark(reason)}", *[""] * 5]))
    lines = [row for _, row in sorted(rows, key=lambda row: row[0])]
    for row in published_beside(results):
        if "weighted_f1" not in row.figures:
            continue
        cells = [f"{row.model}, {row.classes} classes ([published]({row.address}))", row.weights, row.split]
        figures = (decimals(row.figures.get(name), 2 if name == "weighted_f1" else 3) for name in SCORES)
        lines.append([*cells, *figures])
    heads = ["approach", "weights", "folds", *SCORES.values()]
    text = _markdown(heads, lines)
    for note in notes:
        text += f"\n\n{mark(note)} {escape_markdown(note)}"
    return text


def _mark_data(result: Result, first: Result) -> str:
    return "" if result.digest == first.digest else f" (other data: {result.digest[:8]})"


def decimals(value: float | None, places: int = 3) -> str:
    """Return a score for people, and nothing for one that is not known."""
    return "" if value is None else f"{value:.{places}f}"


def with_interval(result: Result, name: str) -> str:
    """Return a pooled score and its 95 % interval: ``0.871 (0.86–0.88)``."""
    low, high = (result.figure("intervals", name, i) for i in (0, 1))
    text = decimals(result.figure(name))
    return text if low is None or high is None else f"{text} ({low:.2f}–{high:.2f})"


def digits(value: float) -> str:
    """Return a number for people, with three digits that count; of a large one, all before the point.

    >>> [digits(value) for value in (0.01234, 8.9, 999.4, 1234)]
    ['0.0123', '8.9', '999', '1234']
    """
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def spread(result: Result, name: str) -> str:
    """Return a score's mean over the folds and its standard deviation: ``0.871 ± 0.011``."""
    mean, deviation = result.figure("mean", name), result.figure("std", name)
    return decimals(mean) if mean is None or deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def costs(result: Result) -> dict[str, str]:
    """Return what a run's model costs, for people; empty where it was not measured."""
    milliseconds = result.figure("cost", "milliseconds")
    return {
        "parameters": _scaled(result.figure("cost", "parameters")),
        "multiply_adds": _scaled(result.figure("cost", "multiply_adds")),
        "bytes": _megabytes(result.figure("cost", "bytes")),
        "milliseconds": "" if milliseconds is None else digits(milliseconds),
        "training_seconds": duration(result.figure("cost", "training_seconds")),
    }


def duration(seconds: float | None) -> str:
    """Return a time for people.

    >>> [duration(s) for s in (None, 42, 620, 9000)]
    ['', '42 s', '10 min', '2 h 30 min']
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def escape_markdown(text: str) -> str:
    r"""Return text that stays in its cell of a Markdown table and that Markdown and HTML read as plain text.

    >>> escape_markdown("a|b <i> [c](d) &lt;")
    'a\\|b &lt;i> \\[c](d) &amp;lt;'
    """
    return escape_unprintable(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("[", "\\[")


def _scaled(value: float | None) -> str:
    if value is None:
        return ""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:  # what rounds to it
            return f"{digits(value / size)} {letter}"
    return digits(value)


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{digits(value / 1e6)} MB"


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines)
