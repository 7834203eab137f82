"""Charts as inline SVG, drawn so that a person, a screen reader and a printer can read them.

Text is text. Colours and sizes are left to the style sheet of the page: a series has a class ``s0`` … ``s9`` for its
colour and a marker of its own, so that no chart needs colour alone. Each chart has a title and a description for those
who do not see it; the page gives the figures beside it as a table.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from clothing_classifier.taxonomy import escape_unprintable

COLOURS: Final = 10
"""How many series have a colour of their own."""

_SHAPES: Final = (
    "M0-5A5 5 0 1 1 0 5A5 5 0 1 1 0-5Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-6L5.4 4.2H-5.4Z",
    "M0-6.2L6.2 0L0 6.2L-6.2 0Z",
    "M0 6L5.4-4.2H-5.4Z",
    "M-1.9-5.6H1.9V-1.9H5.6V1.9H1.9V5.6H-1.9V1.9H-5.6V-1.9H-1.9Z",
    "M0-6L5.7-1.9L3.5 4.9H-3.5L-5.7-1.9Z",
    "M-5.6-2.9L-2.9-5.6L0-2.7L2.9-5.6L5.6-2.9L2.7 0L5.6 2.9L2.9 5.6L0 2.7L-2.9 5.6L-5.6 2.9L-2.7 0Z",
    "M-5.8-3H5.8V3H-5.8Z",
    "M-3-5.8H3V5.8H-3Z",
)

_VOID: Final = ("br", "img", "input", "meta")

Value = str | int | float | bool | None


class Markup(str):
    """Text that is HTML already; any other text is escaped on its way into a page."""

    __slots__ = ()


Content = str | Iterable[str]


def escape(text: str) -> Markup:
    r"""Return text as HTML that shows it, whatever it holds.

    Characters that cannot be seen, steer the direction of writing or cannot be encoded are written as Python's escapes.

    >>> escape("<script>\u202e")
    '&lt;script&gt;\\u202e'
    """
    return Markup(html.escape(escape_unprintable(text)))


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Return several pieces as one; those that are not `Markup` are escaped."""
    return Markup(_content(between).join(_content(part) for part in parts))


def tag(name: str, /, *content: Content, **attributes: Value) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        content: `Markup` as it is, other text escaped; in order, iterables laid flat.
        attributes: underlines become hyphens, one at the end is dropped; ``None`` and ``False`` leave one out, ``True``
            gives it no value, floats are cut to two decimals.

    >>> tag("p", "a < b", Markup("<br>"), class_="note", hidden=True, title='"')
    '<p class="note" hidden title="&quot;">a &lt; b<br></p>'
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        if isinstance(value, float):
            value = f"{value:.2f}".rstrip("0").rstrip(".")
        words.append(key if value is True else f'{key}="{escape(str(value))}"')
    inside = "".join(_content(part) if isinstance(part, str) else join(part) for part in content)
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _VOID else f"{start}{inside}</{name}>")


def _content(text: str) -> Markup:
    return text if isinstance(text, Markup) else escape(text)


@dataclass(frozen=True, slots=True)
class Axis:
    """A chart's axis.

    Attributes:
        title: what it measures, with the unit.
        low: where it begins.
        high: where it ends; above ``low``.
        show: a tick's value → its text.
        log: whether equal distances are equal ratios; both ends are then above 0.
        whole: whether only whole numbers are marked.
    """

    title: str
    low: float
    high: float
    show: Callable[[float], str] = "{:g}".format
    log: bool = False
    whole: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies: 0 at the beginning, 1 at the end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values for the grid, at most so many.

        >>> Axis("", 0, 0.37).ticks(), Axis("", 2, 300, log=True).ticks()
        ([0.0, 0.1, 0.2, 0.3], [3.0, 10.0, 30.0, 100.0, 300.0])
        """
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                values = [step * 10.0**power for power in powers for step in steps]
                values = [value for value in values if self.low <= value <= self.high]
                if len(values) <= most:
                    break
            return values
        width = (self.high - self.low) / most
        if self.whole:
            width = max(1.0, width)
        power = 10.0 ** math.floor(math.log10(width))
        sizes = [size * power for size in (1, 2, 2.5, 5, 10, 20) if not (self.whole and size == 2.5)]
        step = next(size for size in sizes if size >= width * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def spanning(title: str, values: Iterable[float]) -> Axis:
    """Return a logarithmic axis with room around values above 0."""
    known = list(values)
    low, high = min(known), max(known)
    room = max((high / low) ** 0.12, 1.3, math.sqrt(5 * low / high))  # a ratio of 5 holds two ticks or more
    return Axis(title, low / room, high * room, log=True)


def percent(value: float) -> str:
    """Return a share as a percentage of three digits at most: ``40 %``, with a space that does not break."""
    return f"{value * 100:.3g}\u00a0%"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Attributes:
        name: what it stands for; shown on the pointer.
        series: number of the series, for its colour and marker.
        points: x and y of each point.
        dashed: drawn with gaps.
        band: the lowest and highest y at each point, or none.
        marked: each point carries the series' marker.
        sizes: the markers' sizes beside the usual one, or none.
        hollow: the markers are outlines.
    """

    name: str
    series: int
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    band: Sequence[tuple[float, float]] = ()
    marked: bool = False
    sizes: Sequence[float] = ()
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Spot:
    """A point of a scatter chart.

    Attributes:
        name: what it is.
        series: number of the series.
        x: across.
        y: the value of each kind, such as of each protocol; the kinds are joined by a line.
    """

    name: str
    series: int
    x: float
    y: Sequence[tuple[float, bool]]


class _Frame:
    """The plot area with its axes: 360 units wide, of which text and markers keep their size on a phone."""

    def __init__(self, x: Axis, y: Axis, width: float, height: float) -> None:
        self.x, self.y = x, y
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = 44.0, width - 14.0, 26.0, height - 38.0

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return a point's place; one beyond the axes lies on the frame."""
        across, up = min(1.0, max(0.0, self.x.place(x))), min(1.0, max(0.0, self.y.place(y)))
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def axes(self) -> Markup:
        parts = []
        for value in self.y.ticks(5):
            _, y = self.at(self.x.low, value)
            parts.append(tag("line", class_="grid", x1=self.left, x2=self.right, y1=y, y2=y))
            parts.append(tag("text", self.y.show(value), class_="tick end", x=self.left - 6, y=y + 4))
        for value in self.x.ticks(6):
            x, _ = self.at(value, self.y.low)
            parts.append(tag("line", class_="grid", x1=x, x2=x, y1=self.top, y2=self.bottom))
            parts.append(tag("text", self.x.show(value), class_="tick middle", x=x, y=self.bottom + 15))
        middle = (self.left + self.right) / 2
        parts.append(tag("text", self.x.title, class_="axis middle", x=middle, y=self.height - 6))
        parts.append(tag("text", self.y.title, class_="axis", x=0, y=11))
        return tag("g", parts, aria_hidden="true")

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (self.at(*point) for point in points))


def lines(title: str, description: str, drawn: Sequence[Line], x: Axis, y: Axis, *, diagonal: bool = False) -> Markup:
    """Return a line chart.

    Args:
        title: what is shown, in a few words.
        description: what is to be seen, for those who do not see it.
        drawn: the lines, in the order of drawing.
        x: the horizontal axis.
        y: the vertical axis.
        diagonal: draw the line on which y equals x.

    Returns:
        An ``svg`` element of 360 × 250 units.
    """
    frame = _Frame(x, y, 360, 250)
    parts: list[str] = [frame.axes()]
    if diagonal:
        ends = max(x.low, y.low), min(x.high, y.high)
        parts.append(tag("path", class_="diagonal", d=frame.path((end, end) for end in ends)))
    for line in drawn:
        pieces: list[str] = [tag("title", line.name)]
        if line.band:
            outline = [(x, low) for (x, _), (low, _) in zip(line.points, line.band, strict=True)]
            outline += [(x, high) for (x, _), (_, high) in zip(line.points, line.band, strict=True)][::-1]
            pieces.append(tag("path", class_="band", d=frame.path(outline) + "Z"))
        if len(line.points) > 1:
            pieces.append(tag("path", class_="line dashed" if line.dashed else "line", d=frame.path(line.points)))
        if line.marked or len(line.points) == 1:
            sizes = line.sizes or [1.0] * len(line.points)
            for point, size in zip(line.points, sizes, strict=True):
                pieces.append(marker(line.series, *frame.at(*point), size=size, hollow=line.hollow))
        parts.append(tag("g", pieces, class_=colour(line.series), data_series=line.series))
    return picture(title, description, 360, 250, parts)


def scatter(title: str, description: str, spots: Sequence[Spot], x: Axis, y: Axis) -> Markup:
    """Return a scatter chart; every spot is named where its name finds room.

    Args:
        title: what is shown, in a few words.
        description: what is to be seen, for those who do not see it.
        spots: the points.
        x: the horizontal axis.
        y: the vertical axis.

    Returns:
        An ``svg`` element of 360 × 300 units.
    """
    frame = _Frame(x, y, 360, 300)
    parts: list[str] = [frame.axes()]
    taken = []
    for spot in spots:
        places = [frame.at(spot.x, value) for value, _ in spot.y]
        taken += [(across - 6, down - 6, across + 6, down + 6) for across, down in places]
        heights = [down for _, down in places]
        taken.append((places[0][0] - 2, min(heights), places[0][0] + 2, max(heights)))  # the line that joins them
    for spot in spots:
        places = [frame.at(spot.x, value) for value, _ in spot.y]
        pieces: list[str] = [tag("title", spot.name)]
        if len(places) > 1:
            pieces.append(tag("path", class_="line thin", d="M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)))
        for (across, down), (_, hollow) in zip(places, spot.y, strict=True):
            pieces.append(marker(spot.series, across, down, hollow=hollow))
        label = _label(spot.name, places, taken, frame)
        if label is not None:
            taken.append(label)
            pieces.append(tag("text", spot.name, class_="name", x=label[0], y=label[3] - 3))
        parts.append(tag("g", pieces, class_=colour(spot.series), data_series=spot.series))
    return picture(title, description, 360, 300, parts)


_Box = tuple[float, float, float, float]


def _label(name: str, places: Sequence[tuple[float, float]], taken: Sequence[_Box], frame: _Frame) -> _Box | None:
    """Return the first free place for a name beside one of its points, or ``None``."""
    wide, high = 6.3 * len(name), 13.0
    for across, down in places:
        clamped = min(max(across - wide / 2, frame.left + 2), frame.width - 2 - wide)
        for left, top in (
            (across + 9, down - high / 2),
            (across - 9 - wide, down - high / 2),
            (across - wide / 2, down - 8 - high),
            (across - wide / 2, down + 8),
            (across + 8, down - 6 - high),
            (across + 8, down + 6),
            (across - 8 - wide, down - 6 - high),
            (across - 8 - wide, down + 6),
            (clamped, down - 8 - high),
            (clamped, down + 8),
            (clamped, down - 12 - 2 * high),
            (clamped, down + 12 + high),
        ):
            box = (left, top, left + wide, top + high)
            inside = box[0] >= frame.left and box[2] <= frame.width - 2 and box[1] >= 0 and box[3] <= frame.bottom
            if inside and not any(_touch(box, other) for other in taken):
                return box
    return None


def _touch(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@dataclass(frozen=True, slots=True)
class Range:
    """A value on a track, with what is known around it.

    Attributes:
        series: number of the series.
        value: the value.
        interval: where its interval begins and ends, or ``None``.
        parts: values that it is made of, such as those of the folds.
        hollow: the marker is an outline.
        name: what it is; shown on the pointer.
    """

    series: int
    value: float
    interval: tuple[float, float] | None = None
    parts: Sequence[float] = ()
    hollow: bool = False
    name: str = ""


def track(ranges: Sequence[Range], axis: Axis) -> Markup:
    """Return values with their intervals on a line as wide as its place, one above the other."""
    lane = 18
    parts = [
        tag("line", class_="grid", x1=f"{place:.2%}", x2=f"{place:.2%}", y1=0, y2="100%")
        for place in map(axis.place, axis.ticks())
    ]
    for i, entry in enumerate(ranges):
        y = lane * i + lane / 2 + 1
        pieces: list[str] = [tag("title", entry.name)]
        for part in entry.parts:
            pieces.append(tag("circle", class_="part", cx=_across(axis, part), cy=y, r=2.2))
        if entry.interval is not None:
            low, high = (_across(axis, end) for end in entry.interval)
            pieces.append(tag("line", class_="interval", x1=low, x2=high, y1=y, y2=y))
        mark = marker(entry.series, 0, 0, hollow=entry.hollow)
        pieces.append(tag("svg", mark, x=_across(axis, entry.value), y=y, overflow="visible", width=1, height=1))
        parts.append(tag("g", pieces, class_=colour(entry.series)))
    return tag("svg", parts, class_="track", width="100%", height=lane * len(ranges) + 2, aria_hidden="true")


def scale(axis: Axis) -> Markup:
    """Return the ticks of the tracks below it."""
    marks = []
    for value in axis.ticks():
        place = axis.place(value)
        edge = "tick" if place < 0.02 else "tick end" if place > 0.98 else "tick middle"
        marks.append(tag("text", axis.show(value), class_=edge, x=f"{place:.2%}", y=13))
    return tag("svg", marks, class_="track", width="100%", height=18, aria_hidden="true")


def _across(axis: Axis, value: float) -> str:
    return f"{min(1.0, max(0.0, axis.place(value))):.2%}"


def bar(series: int, share: float) -> Markup:
    """Return a bar that fills a share of its place."""
    filled = tag("rect", class_="fill", width=f"{min(1.0, max(0.0, share)):.1%}", height="100%")
    ground = tag("rect", class_="ground", width="100%", height="100%")
    return tag("svg", ground, filled, class_=f"bar {colour(series)}", width="100%", height=6, aria_hidden="true")


def marker(series: int, x: float, y: float, *, size: float = 1.0, hollow: bool = False) -> Markup:
    """Return the marker of a series at a point."""
    shape = _SHAPES[series % len(_SHAPES)]
    place = f"translate({x:.1f} {y:.1f})" + ("" if size == 1 else f" scale({size:.2f})")
    return tag("path", class_="mark hollow" if hollow else "mark", d=shape, transform=place)


def key(series: int, *, hollow: bool = False) -> Markup:
    """Return the marker of a series for a line of text."""
    mark = marker(series, 8, 8, hollow=hollow)
    shown = f"key {colour(series)}"
    return tag("svg", mark, class_=shown, viewBox="0 0 16 16", width=16, height=16, aria_hidden="true")


def colour(series: int) -> str:
    """Return the class that gives a series its colour."""
    return f"s{series % COLOURS}"


def picture(title: str, description: str, width: int, height: int, parts: Iterable[str]) -> Markup:
    """Return an ``svg`` element that is read out as its title and description."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        parts,
        class_="chart",
        role="img",
        aria_label=f"{title}. {description}",
        viewBox=f"0 0 {width} {height}",
    )
