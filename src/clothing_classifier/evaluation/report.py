"""The report: one HTML file that holds everything it shows and loads nothing.

``clothing compare RUN… --data DIR --out report.html`` writes it. Its style and its script lie beside this module; both
are allowed by their digests in the page's content security policy, and nothing else is, so that not even a hole in the
escaping would let a file's name or a label act.
"""

from __future__ import annotations

import base64
import hashlib
import io
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from clothing_classifier.evaluation.charts import (
    Axis,
    Line,
    Markup,
    Range,
    Spot,
    bar,
    join,
    key,
    lines,
    percent,
    scale,
    scatter,
    spanning,
    tag,
    track,
)
from clothing_classifier.evaluation.comparison import (
    PROTOCOLS,
    SCORES,
    Contest,
    Difference,
    Doubt,
    Result,
    Run,
    contest,
    costs,
    decimals,
    digits,
    duration,
    find_doubts,
    get,
    name_runs,
    number,
    published_beside,
    spread,
    with_interval,
)
from clothing_classifier.images import PhotoError, open_picture
from clothing_classifier.resizing import Resizing
from clothing_classifier.taxonomy import CLASSES
from clothing_classifier.training.calibration import PROMISE, promise_across

TITLE: Final = "Clothing classifiers compared"
"""What a report is called unless it is told."""

_MISTAKES: Final = 12
_DOUBTS: Final = 24
_CONFUSIONS: Final = 8
_EXAMPLES: Final = 4

_SIDE: Final = 240
_PHOTO_BYTES: Final = 3_500_000

_STEPS: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)

_EXPLAINED: Final = {
    "random": "random: stratified by class at random; nearly every photo has its sender's other photos "
    "on the side that teaches.",
    "sender": "sender: no sender in two folds, which is what the photos of a new user are like.",
}


def render(runs: Sequence[Run], *, title: str = TITLE, data: Path | None = None, photos: bool = True) -> str:
    """Return the report on some runs.

    Args:
        runs: at least one.
        title: the page's heading.
        data: the folder that the photos' paths start from; without it the report has no photos.
        photos: whether to show photos.

    Returns:
        A whole HTML document without anything from outside, at most about 6 MB.

    Raises:
        ValueError: there are no runs.
    """
    album = _Album(data) if photos and data is not None else None
    page = _Report(runs, album, title)
    here = Path(__file__).parent
    style, script = ((here / name).read_text("utf-8") for name in ("report.css", "report.js"))
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
    policy += "base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag("body", page.content(), tag("script", Markup(script)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class _Album:
    """The photos, small; once they fill their share of the report, no more come."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bytes = 0

    def open(self, path: str, side: int = _SIDE) -> tuple[Image.Image, tuple[int, int]] | str:
        """Return a photo made small and the size that it had, or why there is none."""
        # The path is a run's word: it must not lead out of the folder.
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
            return "its path leads out of the data's folder"
        if self._bytes > _PHOTO_BYTES:
            return "left out, the report would grow too large"
        sizes: list[tuple[int, int]] = []

        def small(width: int, height: int) -> tuple[int, int]:
            sizes.append((width, height))
            shrunk = side / max(width, height, side)
            return max(1, round(width * shrunk)), max(1, round(height * shrunk))

        try:
            picture = open_picture(self._root / path, name=path, target=small)
        except PhotoError as error:
            return error.reason
        size = sizes[0] if sizes else picture.size
        return picture.resize(small(*picture.size), Image.Resampling.LANCZOS), size

    def show(self, picture: Image.Image, description: str) -> Markup:
        """Return an element that holds the picture."""
        content = io.BytesIO()
        picture.save(content, "WEBP", quality=62, method=3)
        coded = base64.b64encode(content.getvalue()).decode()
        self._bytes += len(coded)
        source = f"data:image/webp;base64,{coded}"
        return tag("img", src=source, alt=description, width=picture.width, height=picture.height, decoding="async")


def light_up(
    picture: Image.Image, size: tuple[int, int], evidence: npt.NDArray[Any], resizing: Resizing, most: float
) -> Image.Image:
    """Show where a model saw a class: what speaks for it keeps light and colour, the rest is darkened.

    Args:
        picture: the photo, of any size, ``RGB``.
        size: width and height that the photo had when it was made the network's input.
        evidence: ``[h, w]`` over the network's input, in logits.
        resizing: how the photo became the network's input.
        most: the evidence that is lit fully; less than nothing of it stays dark.

    Returns:
        A picture of the photo's size.
    """
    # Where float16 overflowed, a picture is still owed.
    values = np.nan_to_num(np.asarray(evidence, np.float32), posinf=0.0, neginf=0.0)
    lit = Image.fromarray(np.clip(values / max(most, 1e-6), 0, 1))
    lit = lit.resize((resizing.width, resizing.height), Image.Resampling.BICUBIC)
    if resizing.mode == "pad":
        width, height = resizing.target(*size)
        left, top = (resizing.width - width) // 2, (resizing.height - height) // 2
        lit = lit.crop((left, top, left + width, top + height))
    alpha = np.clip(np.asarray(lit.resize(picture.size, Image.Resampling.BICUBIC)), 0, 1)[..., None]
    pixels = np.asarray(picture, np.float32)
    dark = pixels.mean(2, keepdims=True) * 0.3 + np.array((10, 14, 34), np.float32)
    return Image.fromarray((pixels * alpha + dark * (1 - alpha)).round().clip(0, 255).astype(np.uint8))


@dataclass(frozen=True, slots=True)
class _Entrant:
    """One approach with one choice of weights: a series of every chart."""

    name: str
    series: int
    runs: Mapping[str, Run]

    @property
    def score(self) -> float:
        """The weighted F1 that it is ranked by: with sender folds where there are some."""
        run = self.runs.get("sender") or self.runs["random"]
        return float(run.result.metrics["weighted_f1"])

    @property
    def changes(self) -> str:
        """What of the recipe is not the same in both of its runs, in words."""
        if len(self.runs) < 2:
            return ""
        (first, one), (second, other) = self.runs.items()
        recipes = [get(run.result.config, "recipe") for run in (one, other)]
        names = {name for recipe in recipes if isinstance(recipe, Mapping) for name in recipe}
        found = []
        for name in sorted(names):
            mine, others = (get(recipe, name) for recipe in recipes)
            if mine != others:
                found.append(f"{name} {mine} in {PROTOCOLS[first]}, {others} in {PROTOCOLS[second]}")
        return ", ".join(found)


class _Report:
    def __init__(self, runs: Sequence[Run], album: _Album | None, title: str) -> None:
        self.runs = list(runs)
        self.published = published_beside([run.result for run in runs])
        self.album = album
        self.title = title
        self.contest: Contest = contest(runs)
        self.names = dict(zip(runs, name_runs([run.result for run in runs]), strict=True))
        grouped: dict[str, dict[str, Run]] = defaultdict(dict)
        for run in runs:
            grouped[self.names[run]][run.result.protocol] = run
        self.entrants = [_Entrant(name, i, group) for i, (name, group) in enumerate(grouped.items())]
        self.protocols = [p for p in ("sender", "random") if any(run.result.protocol == p for run in runs)]
        self.series = {run: entrant.series for entrant in self.entrants for run in entrant.runs.values()}
        # What each run names if it promises to be right, no fold by a threshold that was chosen on itself.
        self.named = {run: promise_across(run.probabilities.astype(np.float64), run.truth, run.folds) for run in runs}

    @cached_property
    def doubts(self) -> list[Doubt]:
        return find_doubts(self.runs)

    def content(self) -> Markup:
        """Return the page's body."""
        sections = [
            ("table", "All figures", self._table()),
            ("differences", "Which differences are more than chance", self._differences()),
            ("classes", "Class by class", self._classes()),
            ("confusions", "What is taken for what", self._confusions()),
            ("photos", "Whose photos, and of whom", self._slices()),
            ("trust", "How far to trust an answer", self._trust()),
            ("cost", "What it costs", self._cost()),
            ("curves", "Learning curves", self._curves()),
            ("mistakes", "The worst mistakes", self._mistakes()),
            ("labels", "Labels that look wrong", self._labels()),
            ("origin", "How the figures were made", self._origin()),
        ]
        shown = [(name, heading, inside) for name, heading, inside in sections if inside]
        links = [tag("li", tag("a", heading, href=f"#{name}")) for name, heading, _ in shown]
        return join(
            [
                tag("a", "Skip to the summary", href="#summary", class_="skip"),
                tag("header", tag("h1", self.title), tag("p", self._facts(), class_="facts")),
                self._chips(),
                tag(
                    "main",
                    self._summary(),
                    tag("nav", tag("ul", links), aria_label="Contents"),
                    (tag("section", tag("h2", heading), inside, id=name) for name, heading, inside in shown),
                ),
            ]
        )

    # The top of the page

    def _facts(self) -> str:
        run = self.contest.runs[0]
        known = len({sender for sender in run.senders if sender})
        parts = [f"{len(run.paths):,} photos" + (f" of {known:,} senders" if known else "")]
        parts += [f"{len(run.labels)} classes", _count(len(self.runs), "run")]
        parts += [_count(len(self.entrants), "approach", "approaches")]
        return " · ".join(parts)

    def _chips(self) -> Markup:
        """Return the legend, whose entries also hide a series everywhere."""
        chips = [
            tag(
                "label",
                tag("input", type="checkbox", checked=True, value=entrant.series),
                key(entrant.series),
                tag("span", entrant.name),
            )
            for entrant in self.entrants
        ]
        marks = [tag("span", key(0, hollow=p == "random"), PROTOCOLS[p], class_="kind") for p in self.protocols]
        return tag("div", chips, marks, class_="chips", role="group", aria_label="Runs that are shown")

    def _summary(self) -> Markup:
        said = [tag("p", sentence) for sentence in self._sentences()]
        return tag(
            "section",
            tag("h2", "In short"),
            self._tiles(),
            tag("div", said, class_="prose"),
            self._glance(),
            id="summary",
            tabindex="-1",
        )

    def _tiles(self) -> Markup:
        """Return the few figures that a person remembers."""
        tiles = []
        for protocol in self.protocols:
            ranked = self.contest.ranked(protocol)
            if ranked:
                best = ranked[0]
                about = f"weighted F1, {PROTOCOLS[protocol]}"
                if ends := _interval(best.result):
                    about += f", {ends[0]:.2f} to {ends[1]:.2f}"
                tiles.append((decimals(best.result.figure("weighted_f1")), self._label(best), about))
        named = self.named[self._best]
        about = f"of the photos named, {_precise(named.measured_accuracy)} of them rightly, "
        about += f"{PROTOCOLS[self._best.result.protocol]}, each by a threshold from the others"
        tiles.append((percent(round(named.share, 2)), self._label(self._best), about))
        for anchor in self.published[:1]:
            about = f"weighted F1, {anchor.split}, published"
            tiles.append((decimals(anchor.figures["weighted_f1"], 2), anchor.model, about))
        return tag(
            "ul",
            (tag("li", tag("b", figure), tag("span", name), tag("small", about)) for figure, name, about in tiles),
            class_="tiles",
        )

    def _sentences(self) -> Iterator[Markup]:
        for protocol in self.protocols:
            ranked = self.contest.ranked(protocol)
            if ranked:
                yield self._verdict(protocol, ranked)
        yield from filter(None, (self._gap(), self._against_published()))
        best = self._best
        yield from filter(None, (self._hardest(best), self._sureness(best)))
        if self.doubts:
            text = f"{_count(len(self.doubts), 'label')} of {self._photo_count():,} "
            text += "look wrong: approaches that never saw the photo agree on another class. "
            text += "None was changed: in all figures here, that other class counts as a mistake."
            yield join([text.replace(" look wrong", " looks wrong") if len(self.doubts) == 1 else text])
        yield from self._cautions()

    @cached_property
    def _best(self) -> Run:
        """The run to look at closely: the best one of the harder protocol."""
        return next(ranked[0] for p in self.protocols if (ranked := self.contest.ranked(p)))

    def _photo_count(self) -> int:
        return len({path for run in self.runs for path in run.paths})

    def _verdict(self, protocol: str, ranked: Sequence[Run]) -> Markup:
        best, *others = ranked
        where = {
            "sender": "On photos of people that the models have never met (sender folds)",
            "random": "With random folds",
        }[protocol]
        figures = f"weighted F1 {with_interval(best.result, 'weighted_f1')}, "
        figures += f"macro F1 {decimals(best.result.figure('macro_f1'))}, "
        figures += f"accuracy {decimals(best.result.figure('accuracy'))}"
        if not others:
            return join([f"{where}, ", self._name(best), f" reaches {figures}."])
        parts = [f"{where}, ", self._name(best), f" is best: {figures}. "]
        met = [(run, self.contest.difference(best, run)) for run in others]
        close = [run for run, found in met if not found.clear]
        second, lead = met[0]
        parts += [self._name(second), f" is {lead.value:.3f} behind (95 % interval of the difference {_ends(lead)}), "]
        if not close:
            parts.append("which is more than chance, and so is every other difference to the best.")
        elif close == [second]:
            parts.append("which is within chance; all others are clearly behind.")
        else:
            parts.append("which is within chance. " if second in close else "which is more than chance. ")
            rest = [run for run in close if run is not second]
            parts += ["Within chance too: " if second in close else "Within chance of the best: "]
            parts += [join(map(self._name, rest), ", "), "."]
        return join(parts)

    def _gap(self) -> Markup | None:
        both = [
            entrant
            for entrant in self.entrants
            if len(entrant.runs) == 2 and {*entrant.runs.values()} <= {*self.contest.runs} and not entrant.changes
        ]
        found = [self.contest.difference(e.runs["random"], e.runs["sender"]) for e in both]
        if not found:
            return None
        values = [difference.value for difference in found]
        clear = sum(difference.low > 0 for difference in found)
        middle = statistics.median(values)
        text = "Random folds let a model learn from other photos of the same sender, which sender folds forbid. "
        if len(found) == 1:
            text += f"That changes the weighted F1 of {both[0].name} by {_signed(middle)} "
            text += f"(95 % interval {_ends(found[0])})."
            return join([text])
        text += f"That changes weighted F1 by {_signed(middle)} in the median of {len(values)} approaches, "
        text += f"{_signed(min(values))} to {_signed(max(values))}; "
        text += f"for {clear or 'none'} of them the gain is more than chance."
        return join([text])

    def _against_published(self) -> Markup | None:
        ranked = self.contest.ranked("random")
        if not ranked or set(ranked[0].labels) != set(CLASSES) or ranked[0].result.config.get("folds") != 5:
            return None
        best, anchor = ranked[0], self.published[0]
        reported = anchor.figures["weighted_f1"]
        low, high = (best.result.figure("intervals", "weighted_f1", i) for i in (0, 1))
        lead = float(best.result.metrics["weighted_f1"]) - reported
        text = f"The published figure of the same kind is {reported:.2f} ({anchor.model}, {anchor.split}; "
        parts = [text, tag("a", "source", href=anchor.address, rel="noreferrer"), "): "]
        parts += [self._name(best), f" is {abs(lead):.3f} {'above' if lead >= 0 else 'below'} it"]
        if low is not None and high is not None:
            place = "inside" if low <= reported <= high else "outside"
            parts.append(f", and it lies {place} this run's interval")
        parts.append(". The published work states no interval, and its photos need not be exactly these.")
        return join(parts)

    def _hardest(self, best: Run) -> Markup | None:
        classes = _classes(best.result)
        scored = {label: f1 for label in classes if (f1 := best.result.figure("per_class", label, "f1")) is not None}
        if len(scored) < 2:
            return None
        top, low = max(scored, key=scored.__getitem__), min(scored, key=scored.__getitem__)
        photos = best.result.figure("per_class", low, "photos")
        parts = [f"By class, {self._label(best)} is best at {top} (F1 {scored[top]:.2f}) and worst at {low} "]
        parts.append(f"(F1 {scored[low]:.2f}" + (f", {photos:.0f} photos). " if photos is not None else "). "))
        pairs = _pairs(best)
        if pairs:
            share, true, predicted = pairs[0]
            row = best.confusion[best.labels.index(true)]
            parts.append(
                f"Its most frequent confusion: {share} of {row.sum()} photos of {true} are called {predicted}."
            )
        return join(parts)

    def _sureness(self, best: Run) -> Markup:
        error, named = best.result.figure("expected_calibration_error"), self.named[best]
        parts = []
        if error is not None:
            parts.append(f"Its probabilities are off by {error * 100:.1f} points on average. ")
        parts.append(
            f"Asked to be right in {percent(PROMISE)} of what it names, and to keep silent otherwise, it names "
            f"{percent(round(named.share, 2))} of the photos and is right in {_precise(named.measured_accuracy)} of "
            "these, each fold by a threshold that was chosen on the others."
        )
        return join(parts)

    def _cautions(self) -> Iterator[Markup]:
        texts = []
        fresh = [entrant.name for entrant in self.entrants if _fresh(next(iter(entrant.runs.values())).result)]
        if fresh and len(fresh) < len(self.entrants):
            texts.append(
                f"Started from nothing: {', '.join(fresh)}. "
                "Beside pretrained weights that says little of an architecture."
            )
        strangers = [run for run in self.runs if run not in self.contest.runs]
        if strangers:
            names = ", ".join(dict.fromkeys(map(self._label, strangers)))
            texts.append(f"Not ranked, because they answer other photos or classes: {names}.")
        digests = Counter(run.result.digest for run in self.runs)
        if len(digests) > 1:
            usual = digests.most_common(1)[0][0]
            names = ", ".join(
                f"{self._label(r)} ({r.result.digest[:8]})" for r in self.runs if r.result.digest != usual
            )
            texts.append(f"Made from other data than the rest ({usual[:8]}): {names}.")
        for protocol in self.protocols:
            runs = [run for run in self.contest.runs if run.result.protocol == protocol]
            if any((run.folds != runs[0].folds).any() for run in runs):
                texts.append(f"The {PROTOCOLS[protocol]} are not the same for every run.")
            absent = [e.name for e in self.entrants if protocol not in e.runs]
            if absent:
                texts.append(
                    f"Without a run of {PROTOCOLS[protocol]} here, and so in no ranking of these: {', '.join(absent)}."
                )
        texts += [
            f"{entrant.name} does not have the same recipe in both kinds of folds ({entrant.changes}), so its two "
            "figures differ by more than the folds."
            for entrant in self.entrants
            if entrant.changes
        ]
        texts.append("Every run is one seed; how much another seed would change is in no interval here.")
        if self.album is None:
            texts.append("Photos are left out of this report.")
        yield tag("span", "Mind: ", join(texts, " "), class_="caution")

    def _glance(self) -> Markup:
        """Return every approach's weighted F1 with its interval, on one scale."""
        entrants = sorted(self.entrants, key=lambda entrant: -entrant.score)
        anchors = [row for row in self.published if "weighted_f1" in row.figures and row.classes == 17]
        values = [row.figures["weighted_f1"] for row in anchors]
        for run in self.runs:
            values += [run.result.metrics["weighted_f1"], *(_interval(run.result) or ()), *_fold_scores(run.result)]
        axis = Axis(
            "weighted F1",
            max(0.0, np.floor(min(values) * 20) / 20),
            min(1.0, np.ceil(max(values) * 20 + 0.2) / 20),
            "{:.2f}".format,
        )
        rows = []
        for entrant in entrants:
            kept = [(p, entrant.runs[p]) for p in self.protocols if p in entrant.runs]
            ranges = [
                Range(
                    entrant.series,
                    run.result.metrics["weighted_f1"],
                    _interval(run.result),
                    _fold_scores(run.result),
                    protocol == "random",
                    f"{entrant.name}, {PROTOCOLS[protocol]}: {with_interval(run.result, 'weighted_f1')}",
                )
                for protocol, run in kept
            ]
            said = [tag("span", tag("b", decimals(r.result.figure("weighted_f1"))), f" {p}") for p, r in kept]
            weights = kept[0][1].result.weights
            classes = len(kept[0][1].labels)
            note = f"{weights or 'weights not known'}" + (
                "" if classes == len(self.contest.runs[0].labels) else f", {classes} classes"
            )
            rows.append(_glance_row(entrant.name, note, ranges, axis, said, entrant.series))
        for row in anchors:
            ranges = [Range(9, row.figures["weighted_f1"], hollow=True, name=f"{row.model}, published")]
            said = [tag("span", tag("b", f"{row.figures['weighted_f1']:.2f}"), f" {row.split}")]
            name = join([row.model, " (", tag("a", "published", href=row.address, rel="noreferrer"), ")"])
            rows.append(_glance_row(name, row.weights, ranges, axis, said))
        caption = "Weighted F1 over all folds, with 95 % intervals; small dots are single folds. "
        caption += " ".join(_EXPLAINED[p] for p in self.protocols)
        head = tag("div", tag("span"), scale(axis), tag("span"), class_="glance-row scale")
        return tag("figure", tag("div", head, rows, class_="glance"), tag("figcaption", caption))

    # Sections

    def _table(self) -> Markup:
        heads: list[tuple[str, str]] = [("approach", ""), ("weights", ""), ("photo", "height×width"), ("folds", "")]
        heads += [("weighted F1", "mean ± std"), ("weighted F1", "pooled, 95 %"), ("macro F1", "pooled, 95 %")]
        heads += [("accuracy", "pooled, 95 %"), ("top-10", "weighted F1"), ("parameters", ""), ("multiply-adds", "")]
        heads += [("size", "float32"), ("ms a photo", "one core"), ("training", "all folds")]
        usual = Counter(run.result.digest for run in self.runs).most_common(1)[0][0]
        rows = []
        for run in self.runs:
            result = run.result
            name = self._marked(run)
            other = tag("small", f"other data: {result.digest[:8]}") if result.digest != usual else ""
            cells = [tag("th", name, other, scope="row"), _text(result.weights)]
            cells += [_text(f"{run.resizing.height}×{run.resizing.width}"), _text(result.protocol)]
            cells.append(_two_lines(spread(result, "weighted_f1"), result.figure("mean", "weighted_f1")))
            cells += [_two_lines(with_interval(result, score), result.figure(score)) for score in SCORES]
            cells.append(_cell(decimals(result.top_10("weighted_f1")), result.top_10("weighted_f1")))
            device = str(get(result.metrics, "cost", "device") or "")
            for figure, text in costs(result).items():
                cells.append(_cell(text, result.figure("cost", figure), device if figure == "training_seconds" else ""))
            rows.append(tag("tr", cells, data_series=self.series[run]))
        for row in self.published:
            ten, f1 = row.classes == 10, row.figures.get("weighted_f1")
            link = tag("a", "published", href=row.address, rel="noreferrer", title=row.source)
            cells = [tag("th", row.model, tag("small", link, f", {row.classes} classes"), scope="row")]
            cells += [_text(row.weights), _text(""), _text(row.split), _cell("")]
            cells += [_cell("" if ten else decimals(f1, 2), None if ten else f1)]
            cells += [
                _cell(decimals(row.figures.get(name)), row.figures.get(name)) for name in ("macro_f1", "accuracy")
            ]
            cells += [_cell(decimals(f1, 2) if ten else "", f1 if ten else None), *[_cell("")] * 5]
            rows.append(tag("tr", cells, class_="published"))
        head = tag(
            "tr",
            (
                tag("th", a, tag("small", b) if b else "", scope="col", class_="text" if i < 4 else None)
                for i, (a, b) in enumerate(heads)
            ),
        )
        notes = (
            "Weighted F1 is the mean of the classes' F1 by their number of photos, the published figure; macro F1 has "
            "every class count the same. Pooled: over all photos, each judged by the model that had not seen it. "
            "Intervals resample photos with random folds, and senders with sender folds. A model file takes half of "
            "the size: its weights are stored as float16. An empty cell: not measured, or not reported."
        )
        extra = dict.fromkeys(str(t) for run in self.runs if (t := get(run.result.metrics, "subsets", "top10", "note")))
        if extra:
            notes += f" Top-10: {'; '.join(extra)}."
        table = tag("table", tag("thead", head), tag("tbody", rows), class_="figures sortable")
        return join([_scroll("All figures", table), tag("p", notes, class_="note")])

    def _differences(self) -> Markup | None:
        parts = []
        for protocol in self.protocols:
            ranked = self.contest.ranked(protocol)
            if len(ranked) < 2:
                continue
            shown = ("weighted_f1", "macro_f1")
            rows = []
            for run in ranked[1:]:
                met = [self.contest.difference(run, ranked[0], name) for name in shown]
                verdict = "clearly behind" if met[0].clear else "within chance"
                cells = [tag("th", self._marked(run), tag("small", verdict), scope="row")]
                for found in met:
                    value = tag("b", _signed(found.value)) if found.clear else _signed(found.value)
                    cells.append(tag("td", value, tag("small", _ends(found))))
                rows.append(tag("tr", cells, data_series=self.series[run]))
            heads = [tag("th", "against ", self._label(ranked[0]), scope="col")]
            heads += [tag("th", SCORES[name], scope="col") for name in shown]
            table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", rows), class_="figures")
            parts.append(tag("div", tag("h3", PROTOCOLS[protocol].capitalize()), _scroll(PROTOCOLS[protocol], table)))
        if not parts:
            return None
        drawn = f"{self.contest.units:,} " + ("senders" if self.contest.by_sender else "photos")
        text = f"Paired bootstrap: {drawn} are drawn again and again, and both runs scored on the same draw, so what "
        text += (
            "makes a draw hard for both cancels out. In bold: the 95 % interval leaves out 0. Of the bold ones among "
        )
        text += "many rows, some are bold by chance alone."
        return join([tag("p", text, class_="note"), tag("div", parts, class_="two")])

    def _classes(self) -> Markup:
        parts = []
        for protocol in self.protocols:
            runs = [run for run in self.runs if run.result.protocol == protocol]
            photos: dict[str, float] = {}
            for run in runs:
                for label in _classes(run.result):
                    photos.setdefault(label, run.result.figure("per_class", label, "photos") or 0)
            heads = [tag("th", "class", scope="col"), tag("th", "photos", scope="col")]
            heads += [self._head(run) for run in runs]
            rows = []
            for label in sorted(photos, key=lambda label: (-photos[label], label)):
                cells = [tag("th", label, scope="row"), _cell(f"{photos[label]:,.0f}", photos[label])]
                for run in runs:
                    f1 = run.result.figure("per_class", label, "f1")
                    hint = _precision(run.result, label)
                    cells.append(self._bar_cell(run, f1, hint))
                rows.append(tag("tr", cells))
            table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", rows), class_="figures bars sortable")
            parts.append(tag("h3", f"F1 of each class, {PROTOCOLS[protocol]}"))
            parts.append(_scroll(f"F1 of each class, {PROTOCOLS[protocol]}", table))
        return join(parts)

    def _head(self, run: Run) -> Markup:
        return tag("th", self._marked(run), scope="col", data_series=self.series[run])

    def _bar_cell(self, run: Run, value: float | None, hint: str | None) -> Markup:
        series = self.series[run]
        if value is None:
            return tag("td", data_series=series)
        return tag("td", decimals(value, 2), bar(series, value), data_series=series, data_value=value, title=hint)

    def _confusions(self) -> Markup:
        ranked = [self._best, *(run for run in self.runs if run is not self._best)]
        options, figures = [], []
        for i, run in enumerate(ranked):
            name = self._where(run)
            options.append(tag("option", name, value=f"matrix-{i}"))
            figures.append(self._matrix(run, name, f"matrix-{i}"))
        legend = [
            tag("span", "of the class's photos, right: ", [tag("i", text, class_=f"d{n}") for n, text in _legend()]),
            tag("span", "taken for another: ", [tag("i", text, class_=f"e{n}") for n, text in _legend()]),
        ]
        chooser = tag("label", "Run ", tag("select", options), class_="chooser", hidden=True)
        return join(
            [
                chooser,
                tag("p", legend, class_="heat-legend"),
                tag("div", figures, class_="matrices"),
                tag("output", "Point at a cell, or tap it, to read it as a sentence.", class_="reading", hidden=True),
            ]
        )

    def _matrix(self, run: Run, name: str, place: str) -> Markup:
        matrix = run.confusion
        heads = [tag("td")] + [tag("th", tag("span", label), scope="col") for label in run.labels]
        rows = []
        for i, label in enumerate(run.labels):
            whole = int(matrix[i].sum())
            cells = [tag("th", label, tag("small", f" {whole:,}"), scope="row")]
            for j, other in enumerate(run.labels):
                photos = int(matrix[i, j])
                if not photos:
                    cells.append(tag("td"))
                    continue
                share = photos / whole
                said = f"{photos} of {whole} photos of {label}, {share * 100:.1f} %, are "
                said += "recognised" if i == j else f"called {other}"
                level = f"{'d' if i == j else 'e'}{sum(share >= step for step in _STEPS) + 1}"
                cells.append(tag("td", str(photos), class_=level, title=said))
            rows.append(tag("tr", cells))
        table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", rows), class_="matrix")
        about = tag("p", "Rows are the labels, columns the answers.", class_="note")
        return tag(
            "div", tag("h3", name), about, _scroll(f"Confusions, {name}", table), id=place, class_="matrix-figure"
        )

    def _slices(self) -> Markup | None:
        parts = []
        titles = {"kids": "children's clothes and adults'", "sender_size": "by how many photos the sender gave"}
        for protocol in self.protocols:
            runs = [run for run in self.runs if run.result.protocol == protocol]
            kinds = dict.fromkeys(str(kind) for run in runs for kind in _keys(run.result.metrics, "by"))
            rows = []
            for kind in kinds:
                values = dict.fromkeys(str(v) for run in runs for v in _keys(run.result.metrics, "by", kind))
                rows.append(
                    tag(
                        "tr", tag("th", titles.get(kind, kind), scope="rowgroup", colspan=len(runs) + 2), class_="group"
                    )
                )
                for value in values:
                    counts = [n for run in runs if (n := run.result.figure("by", kind, value, "photos")) is not None]
                    cells = [tag("th", value, scope="row"), _cell(f"{counts[0]:,.0f}" if counts else "")]
                    cells += [
                        self._bar_cell(run, run.result.figure("by", kind, value, "accuracy"), None) for run in runs
                    ]
                    rows.append(tag("tr", cells))
            if rows:
                heads = [tag("th", "", scope="col"), tag("th", "photos", scope="col"), *map(self._head, runs)]
                table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", rows), class_="figures bars")
                title = f"Accuracy, {PROTOCOLS[protocol]}"
                parts += [tag("h3", title), _scroll(title, table)]
        return join(parts) if parts else None

    def _trust(self) -> Markup:
        parts = [tag("h3", "Risk against coverage")]
        text = (
            "A model may keep silent where it is unsure. Read: how often it is wrong (up) if it answers only the share "
            "of the photos (across) that it is surest of. Lower is better."
        )
        parts.append(tag("p", text, class_="note"))
        charts, rows = [], []
        levels = (0.5, 0.7, 0.8, 0.9, 1.0)
        worst = max([r for run in self.runs for _, r in _coverage(run.result)] or [0.1])
        for protocol in self.protocols:
            runs = [run for run in self.runs if run.result.protocol == protocol]
            drawn = [
                Line(self._label(run), self.series[run], points) for run in runs if (points := _coverage(run.result))
            ]
            if drawn:
                title = f"Risk against coverage, {PROTOCOLS[protocol]}"
                about = f"A line for each of {len(drawn)} runs; the table below has the figures."
                axes = Axis("photos answered", 0, 1, percent), Axis("wrong answers", 0, max(worst, 0.01), percent)
                charts.append(_figure(PROTOCOLS[protocol], lines(title, about, drawn, *axes)))
            for run in runs:
                risks = dict(_coverage(run.result))
                cells = [tag("th", self._marked(run), scope="row")]
                cells.append(_text(protocol))
                for level in levels:
                    risk = min(risks.items(), key=lambda item: abs(item[0] - level), default=None)
                    near = risk is not None and abs(risk[0] - level) < 0.02
                    cells.append(
                        _cell(f"{risk[1] * 100:.1f} %" if near and risk else "", risk[1] if near and risk else None)
                    )
                named = self.named[run]
                cells.append(_cell(_precise(named.share), named.share))
                cells.append(_cell(_precise(named.measured_accuracy), named.measured_accuracy))
                error = run.result.figure("expected_calibration_error")
                cells.append(_cell(decimals(error), error))
                rows.append(tag("tr", cells, data_series=self.series[run]))
        if len(self.entrants) > 1 and charts:
            names = [tag("li", key(e.series), e.name, data_series=e.series) for e in self.entrants]
            charts.append(_figure("Key", tag("ul", names, class_="names")))
        parts.append(tag("div", charts, class_="charts"))
        heads = [("approach", ""), ("folds", ""), *(("wrong", f"at {percent(level)}") for level in levels)]
        heads += [("named", f"to be {percent(PROMISE)} right"), ("right", "of these"), ("calibration", "error")]
        head = tag(
            "tr", (tag("th", a, tag("small", b), scope="col", class_="text" if not b else None) for a, b in heads)
        )
        table = tag("table", tag("thead", head), tag("tbody", rows), class_="figures sortable")
        parts.append(_scroll("Risk, coverage and calibration", table))
        parts.append(tag("h3", "Reliability"))
        text = "Of the photos that are given a probability (across), how many are right (up). On the dotted line, a "
        text += "probability means what it says; below it, the model is too sure of itself. Larger marks, more photos."
        parts.append(tag("p", text, class_="note"))
        charts = []
        for entrant in self.entrants:
            drawn = []
            for protocol, run in entrant.runs.items():
                bins = _reliability(run.result)
                if bins:
                    most = max(photos for _, _, photos in bins)
                    sizes = [0.45 + 0.85 * (photos / most) ** 0.5 for _, _, photos in bins]
                    points = [(confidence, accuracy) for confidence, accuracy, _ in bins]
                    random = protocol == "random"
                    drawn.append(Line(PROTOCOLS[protocol], entrant.series, points, random, (), True, sizes, random))
            if drawn:
                errors = [
                    f"{PROTOCOLS[p]}: calibration error {decimals(run.result.figure('expected_calibration_error'))}"
                    for p, run in entrant.runs.items()
                ]
                axes = Axis("probability given", 0, 1, percent), Axis("right", 0, 1, percent)
                chart = lines(f"Reliability of {entrant.name}", "; ".join(errors), drawn, *axes, diagonal=True)
                table = self._reliability_table(entrant)
                mark = key(entrant.series)
                charts.append(_figure(entrant.name, chart, table, mark=mark, series=entrant.series))
        parts.append(tag("div", charts, class_="charts"))
        return join(parts)

    def _reliability_table(self, entrant: _Entrant) -> Markup:
        rows = []
        for protocol, run in entrant.runs.items():
            for confidence, accuracy, photos in _reliability(run.result):
                texts = (protocol, f"{confidence * 100:.1f} %", f"{accuracy * 100:.1f} %", f"{photos:,.0f}")
                rows.append(tag("tr", map(_cell, texts)))
        return _details(("folds", "probability given", "right", "photos"), rows)

    def _cost(self) -> Markup | None:
        scales = {
            "milliseconds": ("milliseconds a photo, one core", 1.0),
            "multiply_adds": ("million multiply-adds", 1e-6),
            "training_seconds": ("minutes of training, all folds", 1 / 60),
        }
        charts = []
        scores = [run.result.metrics["weighted_f1"] for run in self.contest.runs]
        room = max(0.01, (max(scores) - min(scores)) * 0.12)
        y = Axis("weighted F1", max(0.0, min(scores) - room), min(1.0, max(scores) + room), "{:.3g}".format)
        devices = Counter(t for run in self.contest.runs if (t := get(run.result.metrics, "cost", "device")))
        usual = devices.most_common(1)[0][0] if devices else None
        for name, (title, factor) in scales.items():
            spots = []
            for entrant in self.entrants:
                runs = [
                    (p, entrant.runs[p])
                    for p in self.protocols
                    if p in entrant.runs and entrant.runs[p] in self.contest.runs
                ]
                if name == "training_seconds":
                    runs = [(p, run) for p, run in runs if get(run.result.metrics, "cost", "device") == usual]
                known = [v for _, run in runs if (v := run.result.figure("cost", name)) is not None and v > 0]
                if known:
                    heights = [(run.result.metrics["weighted_f1"], p == "random") for p, run in runs]
                    # Of what was measured twice the lower: other work on a machine makes it slower, and never faster.
                    spots.append(Spot(entrant.name, entrant.series, min(known) * factor, heights))
            if spots:
                about = "; ".join(f"{spot.name}: {digits(spot.x)}, {spot.y[0][0]:.3f}" for spot in spots)
                x = spanning(title, (spot.x for spot in spots))
                charts.append(_figure(title.capitalize(), scatter(f"Weighted F1 against {title}", about, spots, x, y)))
        if not charts:
            return None
        text = (
            "Up is better, left is cheaper. Each approach has a mark per protocol, joined by a line. The figures stand "
            "in the table at the top. Multiply-adds are counted; milliseconds are of the machine that the run was on, "
            "which may be another one for each."
        )
        if len(devices) > 1:
            text += f" Training is compared where it ran on the same: {usual}."
        return join([tag("p", text, class_="note"), tag("div", charts, class_="charts")])

    def _curves(self) -> Markup | None:
        charts = []
        for run in self.runs:
            found = get(run.result.config, "recipe", "members")
            members = found if isinstance(found, int) and found > 0 else 1
            each = max((point.epoch for point in run.curves), default=0) // members  # epochs of one training
            epochs: dict[int, list[Any]] = defaultdict(list)
            for point in run.curves:
                epochs[(point.epoch - 1) % each + 1 if each else point.epoch].append(point)
            if len(epochs) < 2:
                continue

            def drawn(
                name: str,
                value: Callable[[Any], float],
                dashed: bool,
                run: Run = run,
                epochs: Mapping[int, list[Any]] = epochs,
            ) -> Line:
                values = {epoch: [value(point) for point in points] for epoch, points in sorted(epochs.items())}
                middle = [(float(epoch), float(np.mean(found))) for epoch, found in values.items()]
                band = [(min(found), max(found)) for found in values.values()]
                return Line(name, self.series[run], middle, dashed, band)

            teach = drawn("photos that teach", lambda point: point.train_loss, True)
            held = drawn("fold held out", lambda point: point.validation_loss, False)
            right = drawn("fold held out", lambda point: point.validation_accuracy, False)
            across = Axis("epoch", 1, max(epochs), whole=True)
            most = max(high for line in (teach, held) for _, high in line.band)
            name = self._where(run)
            last = (
                f"After the last epoch: loss {teach.points[-1][1]:.3f} on photos that teach, "
                f"{held.points[-1][1]:.3f} on the fold held out, of which {percent(right.points[-1][1])} are right."
            )
            if members > 1:
                last += f" That is each of {members} trainings; the mean of their weights is right in "
                last += f"{percent(run.result.metrics['accuracy'])}."
            rows = [
                tag("tr", map(_cell, (f"{a[0]:.0f}", f"{a[1]:.3f}", f"{b[1]:.3f}", f"{c[1] * 100:.1f} %")))
                for a, b, c in zip(teach.points, held.points, right.points, strict=True)
            ]
            table = _details(("epoch", "loss, teaching", "loss, held out", "right, held out"), rows)
            pair = tag(
                "div",
                lines(f"Loss of {name}", last, [teach, held], across, Axis("loss", 0, most)),
                lines(f"Accuracy of {name}", last, [right], across, Axis("right", 0, 1, percent)),
                class_="pair",
            )
            mark = key(self.series[run], hollow=run.result.protocol == "random")
            charts.append(_figure(name, pair, table, mark=mark, series=self.series[run]))
        if not charts:
            return None
        text = (
            "Means over the folds, and over the trainings where a run averages the weights of several, and the range "
            "over them as a band. Dashed: the photos that teach, with augmentation and mixing, hence the higher loss; "
            "solid: the fold held out, which is shown here and chosen on nowhere. "
            "Frozen approaches have no epochs."
        )
        if any(get(run.result.config, "recipe", "small") for run in self.runs):
            text += " Most curves jump once: there, photos of full size take over from smaller ones."
        return join([tag("p", text, class_="note"), tag("div", charts, class_="charts")])

    def _mistakes(self) -> Markup:
        run = self._best
        parts = [tag("p", f"Of {self._label(run)}, {PROTOCOLS[run.result.protocol]}.", class_="note")]
        parts += [tag("h3", "The most frequent confusions"), self._frequent(run)]
        for protocol in self.protocols:
            ranked = self.contest.ranked(protocol)
            if ranked:
                parts += [tag("h3", f"The most confident mistakes of {self._label(ranked[0])}, {PROTOCOLS[protocol]}")]
                parts.append(self._confident(ranked[0]))
        if self.album is None:
            parts.insert(
                0, tag("p", "Photos are left out of this report; the names are those of their files.", class_="note")
            )
        return join(parts)

    def _frequent(self, run: Run) -> Markup:
        cards = []
        for photos, true, predicted in _pairs(run)[:_CONFUSIONS]:
            i, j = run.labels.index(true), run.labels.index(predicted)
            places = np.flatnonzero((run.truth == i) & (run.predicted == j))
            places = places[np.argsort(-run.confidence[places], kind="stable")][:_EXAMPLES]
            whole = int(run.confusion[i].sum())
            head = tag("p", tag("b", true), " taken for ", tag("b", predicted), tag("small", f" {photos} of {whole}"))
            shown = [self._thumb(run.paths[k], f"{true} taken for {predicted}") for k in places] if self.album else []
            cards.append(tag("li", head, tag("div", shown, class_="thumbs") if shown else ""))
        return tag("ul", cards, class_="cards frequent")

    def _confident(self, run: Run) -> Markup:
        wrong = np.flatnonzero(run.truth != run.predicted)
        wrong = wrong[np.argsort(-run.confidence[wrong], kind="stable")][:_MISTAKES]
        doubted = {doubt.path: doubt for doubt in self.doubts}
        cards = []
        for place in wrong:
            path, true, predicted = run.paths[place], run.labels[run.truth[place]], run.labels[run.predicted[place]]
            given = float(run.probabilities[place, run.truth[place]])
            text = [
                tag("b", predicted),
                f" {percent(round(float(run.confidence[place]), 3))}, labelled ",
                tag("b", true),
            ]
            text.append(f" ({percent(round(given, 3))})")
            flag: Markup | str = ""
            if path in doubted:
                doubt = doubted[path]
                flag = tag(
                    "p",
                    f"Label looks wrong: {doubt.agreeing} of {doubt.asked} approaches say {doubt.suggested}",
                    class_="flag",
                )
            shown = self._panels(run, int(place), true, predicted) if self.album else ""
            cards.append(tag("li", shown, tag("p", text), flag, tag("p", path, class_="path")))
        return tag("ol", cards, class_="cards")

    def _panels(self, run: Run, place: int, true: str, predicted: str) -> Markup:
        assert self.album is not None
        opened = self.album.open(run.paths[place])
        if isinstance(opened, str):
            return tag("p", f"No photo: {opened}.", class_="note")
        picture, size = opened
        panels = [tag("figure", self.album.show(picture, f"A photo labelled {true}"), tag("figcaption", "photo"))]
        both = None if run.evidence is None else np.asarray(run.evidence[place], np.float32)
        if both is not None and np.isfinite(both).any():  # a run keeps the maps of its worst mistakes alone
            most = float(np.nan_to_num(both, posinf=0.0, neginf=0.0).max())
            for evidence, label in zip(both, (predicted, true), strict=True):
                lit = light_up(picture, size, evidence, run.resizing, most)
                seen = self.album.show(lit, f"Lit: what speaks for {label}")
                panels.append(tag("figure", seen, tag("figcaption", f"for {label}")))
        return tag("div", panels, class_="panels")

    def _thumb(self, path: str, description: str) -> Markup:
        assert self.album is not None
        opened = self.album.open(path, 160)
        return tag("span", "?", title=opened) if isinstance(opened, str) else self.album.show(opened[0], description)

    def _labels(self) -> Markup | None:
        if len({run.result.approach for run in self.runs}) < 2:
            return None
        if not self.doubts:
            return tag(
                "p", "None: on no photo do most approaches agree with confidence on another class.", class_="note"
            )
        text = (
            "At least two thirds of the approaches, and at least two, name the same other class in all their runs, "
            "with a mean probability of 80 % or more, without having seen the photo. A person should look; the label "
            "may still be right. "
        )
        if self.album and len(self.doubts) > _DOUBTS:
            text += f"The first {_DOUBTS} of {len(self.doubts)}; the list below has all."
        cards, rows = [], []
        for doubt in self.doubts:
            votes = f"{doubt.agreeing} of {doubt.asked}"
            rows.append(
                tag(
                    "tr",
                    tag("th", doubt.path, scope="row"),
                    map(_cell, (doubt.label, doubt.suggested, percent(round(doubt.probability, 3)), votes)),
                )
            )
        for doubt in self.doubts[:_DOUBTS]:
            said = tag("p", "labelled ", tag("b", doubt.label), tag("br"), "looks like ", tag("b", doubt.suggested))
            votes = tag(
                "p",
                f"{doubt.agreeing} of {doubt.asked} approaches, {percent(round(doubt.probability, 2))}",
                class_="path",
            )
            shown = self._thumb(doubt.path, f"A photo labelled {doubt.label}") if self.album else ""
            cards.append(tag("li", shown, tag("div", said, votes)))
        parts = [tag("p", text, class_="note")]
        heads = ("photo", "label", "suggested", "probability", "approaches")
        if self.album:
            parts += [tag("ul", cards, class_="cards doubts"), _details(heads, rows, "All of them as a table")]
        else:
            head = tag("tr", (tag("th", text, scope="col") for text in heads))
            parts.append(
                _scroll(
                    "Labels that look wrong",
                    tag("table", tag("thead", head), tag("tbody", rows), class_="figures sortable"),
                )
            )
        return join(parts)

    def _origin(self) -> Markup:
        entries = []
        for run in self.runs:
            config = run.result.config
            scores = ", ".join(f"{value:.3f}" for value in _fold_scores(run.result))
            facts = {
                "approach": config.get("summary"),
                "command": run.result.command,
                "protocol": run.result.metrics.get("protocol"),
                "single folds": f"weighted F1 {scores}" if scores else None,
                "weights": get(config, "weights", "source"),
                "weights' licence": get(config, "weights", "licence"),
                "weights' SHA-256": get(config, "weights", "sha256"),
                "data": get(config, "data", "edition"),
                "data's digest": run.result.digest,
                "seed": config.get("seed"),
                "version": get(run.result.metrics, "training", "version"),
                "commit": get(run.result.metrics, "training", "commit"),
                "training": duration(run.result.figure("cost", "training_seconds")),
            }
            listed = [(tag("dt", name), tag("dd", str(fact))) for name, fact in facts.items() if fact not in (None, "")]
            name = self._where(run)
            inside = tag("dl", (join(pair) for pair in listed))
            entries.append(tag("details", tag("summary", name), inside, data_series=self.series[run]))
        sources = {row.address: row.source for row in self.published}
        links = [tag("li", tag("a", name, href=address, rel="noreferrer")) for address, name in sources.items()]
        if links:
            entries += [tag("h3", "Where the published figures are from"), tag("ul", links, class_="sources")]
        return join(entries)

    # Names

    def _label(self, run: Run) -> str:
        return self.names[run]

    def _marked(self, run: Run) -> Markup:
        """Return a run's name after its marker."""
        mark = key(self.series[run], hollow=run.result.protocol == "random")
        return join([mark, self._label(run)])

    def _where(self, run: Run) -> str:
        return f"{self._label(run)}, {PROTOCOLS[run.result.protocol]}"

    def _name(self, run: Run) -> Markup:
        return tag("strong", self._label(run))


def _glance_row(
    name: str, note: str, ranges: Sequence[Range], axis: Axis, said: Iterable[str], series: int | None = None
) -> Markup:
    mark = key(series) if series is not None else ""
    title = tag("div", mark, tag("span", tag("b", name), tag("small", note)), class_="who")
    values = tag("div", said, class_="values")
    kind = "glance-row" if series is not None else "glance-row published"
    return tag("div", title, track(ranges, axis), values, class_=kind, data_series=series)


def _cell(text: str, value: float | None = None, small: str = "") -> Markup:
    """Return a cell with a number, and beneath it what is said of it."""
    return tag("td", text, tag("small", small) if small else "", data_value=None if value is None else repr(value))


def _text(text: str) -> Markup:
    return tag("td", text, class_="text")


def _two_lines(text: str, value: float | None) -> Markup:
    """Return a cell with a score above what is said of its spread."""
    score, _, rest = text.partition(" ")
    return _cell(score, value, rest.strip("()"))


def _scroll(name: str, table: Markup) -> Markup:
    """Return a table that scrolls in its place where it is wider than the page, by keyboard too."""
    return tag("div", table, class_="scroll", role="region", aria_label=name, tabindex=0)


def _figure(name: str, *inside: Markup, mark: Markup | None = None, series: int | None = None) -> Markup:
    return tag("figure", tag("figcaption", mark or "", name), inside, data_series=series)


def _details(heads: Iterable[str], rows: Iterable[str], name: str = "Figures") -> Markup:
    head = tag("tr", (tag("th", text, scope="col") for text in heads))
    table = tag("table", tag("thead", head), tag("tbody", rows), class_="figures")
    return tag("details", tag("summary", name), _scroll(name, table))


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _ends(difference: Difference) -> str:
    return f"{_signed(difference.low)} to {_signed(difference.high)}"


def _legend() -> Iterator[tuple[int, str]]:
    names = ("< 2", "2", "5", "10", "20", "35", "50", "70", "85 %")
    return ((i + 1, name) for i, name in enumerate(names))


def _keys(values: object, *keys: str) -> list[str]:
    found = get(values, *keys)
    return list(found) if isinstance(found, Mapping) else []


def _classes(result: Result) -> list[str]:
    return _keys(result.metrics, "per_class")


def _precision(result: Result, label: str) -> str | None:
    precision, recall = (result.figure("per_class", label, name) for name in ("precision", "recall"))
    return None if precision is None or recall is None else f"precision {precision:.2f}, recall {recall:.2f}"


def _items(result: Result, name: str) -> list[object]:
    found = result.metrics.get(name)
    return found if isinstance(found, list) else []


def _interval(result: Result) -> tuple[float, float] | None:
    low, high = (result.figure("intervals", "weighted_f1", i) for i in (0, 1))
    return None if low is None or high is None else (low, high)


def _fold_scores(result: Result) -> list[float]:
    found = (number(get(fold, "weighted_f1")) for fold in _items(result, "folds"))
    return [value for value in found if value is not None]


def _coverage(result: Result) -> list[tuple[float, float]]:
    points = ((number(get(p, "coverage")), number(get(p, "risk"))) for p in _items(result, "coverage"))
    return sorted((coverage, risk) for coverage, risk in points if coverage is not None and risk is not None)


def _precise(share: float) -> str:
    return f"{share * 100:.1f}\u00a0%"


def _reliability(result: Result) -> list[tuple[float, float, float]]:
    """Return confidence, accuracy and photos of the bins that have photos."""
    bins = []
    for entry in _items(result, "reliability"):
        values = [number(get(entry, name)) for name in ("confidence", "accuracy", "photos")]
        confidence, accuracy, photos = values
        if confidence is not None and accuracy is not None and photos:
            bins.append((confidence, accuracy, photos))
    return bins


def _fresh(result: Result) -> bool:
    return result.weights in ("", "none")


def _pairs(run: Run) -> list[tuple[int, str, str]]:
    """Return the confusions, the most frequent first: photos, their label, the answer."""
    matrix = run.confusion
    found = [
        (int(matrix[i, j]), true, predicted)
        for i, true in enumerate(run.labels)
        for j, predicted in enumerate(run.labels)
        if i != j and matrix[i, j]
    ]
    return sorted(found, key=lambda pair: (-pair[0], pair[1:]))
