from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clothing_classifier.evaluation.charts import (
    COLOURS,
    Axis,
    Line,
    Markup,
    Range,
    Spot,
    bar,
    escape,
    join,
    key,
    lines,
    marker,
    percent,
    scale,
    scatter,
    spanning,
    tag,
    track,
)

SHARES = st.floats(0, 1)
UNIT = Axis("across", 0, 1, percent), Axis("up", 0, 1, percent)


class Reader(HTMLParser):
    """What a browser would make of the text: elements with their attributes, and text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(text: str) -> str:
    return "".join(
        c if c.isprintable() or c in "\u00a0\u200c\u200d" else c.encode("unicode_escape").decode() for c in text
    )


def numbers(element: ET.Element) -> list[tuple[float, float]]:
    """Return the points of a path."""
    found = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", element.get("d", ""))]
    return list(zip(found[::2], found[1::2], strict=True))


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_is_shown_and_does_nothing(content: str, attribute: str) -> None:
    made = tag("p", content, title=attribute)
    read = Reader(made)
    assert read.tags == [("p", {"title": shown(attribute)})]
    assert read.text == shown(content)
    made.encode()  # lone surrogates of file names included


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "</title><img src=x onerror=alert(1)>", "a\u202eb", "\0"]
)
def test_hostile_text_is_text_in_charts_too(hostile: str) -> None:
    series = [Line(hostile, 0, [(0, 0.1), (1, 0.2)])]
    spots = [Spot(hostile, 0, 3.0, [(0.5, False)])]
    for chart in (
        lines(hostile, hostile, series, Axis(hostile, 0, 1), Axis(hostile, 0, 1)),
        scatter(hostile, hostile, spots, spanning(hostile, [1, 9]), UNIT[1]),
        track([Range(0, 0.5, name=hostile)], UNIT[0]),
    ):
        assert not {name for name, _ in Reader(chart).tags} & {"script", "img"}
        ET.fromstring(chart)


def test_markup_is_taken_as_it_is_and_text_is_not() -> None:
    assert tag("b", Markup("<i></i>"), "<i>", ["&", Markup("&amp;")]) == "<b><i></i>&lt;i&gt;&amp;&amp;</b>"
    assert join(["<", Markup("<br>")], " & ") == "&lt; &amp; <br>"
    assert tag("input", checked=True, value=0, class_=None, hidden=False) == '<input checked value="0">'
    assert escape("40\u00a0%") == "40\u00a0%"


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8), st.booleans())
def test_ticks_are_few_even_and_within_the_axis(low: float, width: float, most: int, whole: bool) -> None:
    axis = Axis("", low, low + width, whole=whole)
    ticks = axis.ticks(most)
    assert len(ticks) <= most + 1
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)
    steps = [b - a for a, b in pairwise(ticks)]
    assert all(step == pytest.approx(steps[0], rel=1e-6, abs=1e-9 * abs(low)) for step in steps)
    if whole:
        assert all(tick == round(tick) for tick in ticks)
    elif most >= 4 and width > 1e-2 * abs(low):
        assert len(ticks) >= 2


@settings(deadline=None)
@given(st.floats(1e-3, 1e6), st.floats(1.5, 1e6))
def test_ticks_of_ratios_are_few_and_within_the_axis(low: float, ratio: float) -> None:
    axis = Axis("", low, low * ratio, log=True)
    ticks = axis.ticks()
    assert all(low <= tick <= low * ratio for tick in ticks)
    assert ticks == sorted(set(ticks))
    assert axis.place(low) == pytest.approx(0)
    assert axis.place(low * ratio) == pytest.approx(1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=20), st.booleans())
def test_no_line_leaves_its_chart(points: list[tuple[float, float]], marked: bool) -> None:
    chart = ET.fromstring(lines("t", "d", [Line("a", 1, points, marked=marked)], *UNIT))
    path = next(element for element in chart.iter("path") if element.get("class") == "line")
    places = numbers(path)
    assert len(places) == len(points)
    assert all(0 <= x <= 360 and 0 <= y <= 250 for x, y in places)
    assert len([element for element in chart.iter("path") if element.get("class") == "mark"]) == marked * len(points)


def test_up_is_up_and_right_is_right() -> None:
    chart = ET.fromstring(lines("t", "d", [Line("a", 0, [(0.1, 0.2), (0.9, 0.7)])], *UNIT, diagonal=True))
    (x1, y1), (x2, y2) = numbers(next(e for e in chart.iter("path") if e.get("class") == "line"))
    assert x1 < x2
    assert y1 > y2
    assert any(element.get("class") == "diagonal" for element in chart.iter("path"))


def test_a_chart_is_read_out() -> None:
    chart = ET.fromstring(
        lines("Risk", "It falls.", [Line("a", 0, [(0, 0), (1, 1)], band=[(0, 0.1), (0.9, 1)])], *UNIT)
    )
    assert chart.get("role") == "img"
    assert chart.get("aria-label") == "Risk. It falls."
    assert [element.text for element in chart][:2] == ["Risk", "It falls."]
    texts = {element.text for element in chart.iter("text")}
    assert {"across", "up", "0\u00a0%", "100\u00a0%"} <= texts
    assert len([element for element in chart.iter("path") if element.get("class") == "band"]) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1, 100), SHARES, SHARES), min_size=1, max_size=12))
def test_names_in_a_scatter_chart_never_lie_on_each_other(places: list[tuple[float, float, float]]) -> None:
    spots = [Spot(f"approach-{i}", i, x, [(a, False), (b, True)]) for i, (x, a, b) in enumerate(places)]
    chart = ET.fromstring(scatter("t", "d", spots, spanning("ms", (spot.x for spot in spots)), UNIT[1]))
    names = [element for element in chart.iter("text") if element.get("class") == "name"]
    boxes = [(float(n.get("x", 0)), float(n.get("y", 0)), 6.3 * len(n.text or "")) for n in names]
    for (x1, y1, w1), (x2, y2, w2) in combinations(boxes, 2):
        assert x1 + w1 <= x2 + 0.02 or x2 + w2 <= x1 + 0.02 or abs(y1 - y2) >= 12.97
    marks = [element for element in chart.iter("path") if (element.get("class") or "").startswith("mark")]
    assert len(marks) == 2 * len(spots)


@settings(deadline=None)
@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=4))
def test_tracks_place_values_by_share_of_their_width(values: list[tuple[float, float, float]]) -> None:
    ranges = [Range(i, v, (min(a, v), max(a, v)), [a, b], name="n") for i, (v, a, b) in enumerate(values)]
    drawn = ET.fromstring(track(ranges, UNIT[0]))
    marks = [element.get("x") for element in drawn.findall("./g/svg")]
    assert marks == [f"{v:.2%}" for v, _, _ in values]
    assert len(drawn.findall("./g/circle")) == 2 * len(values)
    assert [e.text for e in ET.fromstring(scale(UNIT[0])).iter("text")][-1] == "100\u00a0%"


def test_every_series_has_a_marker_of_its_own() -> None:
    shapes = {ET.fromstring(marker(series, 0, 0)).get("d") for series in range(COLOURS)}
    assert len(shapes) == COLOURS
    assert 'class="key s3"' in key(COLOURS + 3)
    assert "hollow" in key(0, hollow=True)


@pytest.mark.parametrize(("share", "width"), [(0.25, "25.0%"), (-1, "0.0%"), (7, "100.0%")])
def test_a_bar_stays_in_its_place(share: float, width: str) -> None:
    assert [rect.get("width") for rect in ET.fromstring(bar(0, share))] == ["100%", width]


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=9))
def test_an_axis_of_ratios_has_room_and_ticks(values: list[float]) -> None:
    axis = spanning("ms", values)
    assert all(0 < axis.place(value) < 1 for value in values)
    assert len(axis.ticks()) >= 2
