from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clothing_classifier.evaluation.comparison import PUBLISHED, Run, read_run
from clothing_classifier.evaluation.report import light_up, render
from clothing_classifier.resizing import Resizing
from clothing_classifier.taxonomy import CLASSES, TOP_10
from clothing_classifier.training.calibration import Promise

if TYPE_CHECKING:
    import crossval_runs as runs
    from playwright.sync_api import Browser, Page
else:
    spec = importlib.util.spec_from_file_location("crossval_runs", Path(__file__).with_name("crossval_runs.py"))
    runs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runs)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECTIONS = ["table", "differences", "classes", "confusions", "photos", "trust", "cost", "curves", "mistakes", "labels"]
HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style></script><b>", "' onload='alert(1)"]
VOID = {"meta", "img", "input", "br"}

Make = Callable[..., Run]


class Outline(HTMLParser):
    """The elements of a page, and whether each is closed where it should be."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> runs.Data:
    return runs.draw(tmp_path_factory.mktemp("data"))


@pytest.fixture
def make(data: runs.Data, tmp_path: Path) -> Make:
    """A function: skill → a run that was written and read again."""

    def make(skill: float, seed: int = 0, *, data: runs.Data = data, **options: Any) -> Run:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        return read_run(runs.write_run(place, data, runs.guess(data, skill, seed), **options))

    return make


@pytest.fixture(scope="module")
def compared(data: runs.Data, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two approaches in both protocols, a third in one; the first two agree against a label."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for i, (approach, skill) in enumerate((("efficientnet-b0", 0.95), ("custom-cnn", 0.6), ("resnet50", 0.9))):
        for protocol in ("random", "sender")[: 1 if approach == "resnet50" else 2]:
            probabilities = runs.guess(data, skill, i + 10 * (protocol == "sender"))
            if approach != "resnet50":
                probabilities[8] = (0.01, 0.01, 0.97, 0.01)
            place = folder / f"{approach}-{protocol}"
            weights = "none" if approach == "custom-cnn" else "file: tf_efficientnet_b0.safetensors"
            found.append(read_run(runs.write_run(place, data, probabilities, approach, protocol, weights=weights)))
    return found


def words(page: str) -> str:
    return " ".join(Outline(page).text.replace("\u00a0", " ").split())


def test_the_page_is_whole_and_loads_nothing(compared: list[Run], data: runs.Data) -> None:
    page = render(compared, data=data.root)
    outline = Outline(page)
    assert [a.get("id") for t, a in outline.tags if t == "section"] == ["summary", *SECTIONS, "origin"]
    assert not {tag for tag, _ in outline.tags} & {
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "video",
        "audio",
    }
    ids = Counter(a["id"] for _, a in outline.tags if "id" in a)
    assert set(ids.values()) == {1}
    for name, attributes in outline.tags:
        assert not [key for key in attributes if key.startswith("on") or key in ("style", "srcset", "xlink:href")]
        if "src" in attributes:
            assert name == "img"
            assert (attributes["src"] or "").startswith("data:image/webp;base64,")
        if "href" in attributes:
            href = attributes["href"] or ""
            assert name == "a"
            assert (href.startswith("#") and href[1:] in ids) or href in {row.address for row in PUBLISHED}
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"url\(|@import|https?:|image-set|src:", style)
    script = page.partition("<script>")[2].partition("</script>")[0]
    assert not re.search(r"https?:|fetch|XMLHttp|import|eval|innerHTML", script)
    # What may act is what lies beside the module, by its digest.
    policy = next(a["content"] for t, a in outline.tags if a.get("http-equiv") == "Content-Security-Policy")
    for content in (style, script):
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in (policy or "")
    assert "default-src 'none'" in (policy or "")
    assert "unsafe" not in (policy or "")


def test_the_same_runs_make_the_same_page(compared: list[Run], data: runs.Data) -> None:
    assert render(compared, data=data.root) == render(compared, data=data.root)


def test_every_figure_of_the_table_is_on_the_page(compared: list[Run]) -> None:
    said = words(render(compared))
    for run in compared:
        metrics = run.result.metrics
        for name in ("weighted_f1", "macro_f1", "accuracy"):
            low, high = metrics["intervals"][name]
            assert f"{metrics[name]:.3f}{low:.2f}–{high:.2f}" in said
        assert run.result.command is not None
        assert run.result.command in said


wild = st.text(max_size=20) | st.sampled_from(HOSTILE)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_from_data_acts(tmp_path: Path, data: runs.Data, draw: st.DataObject) -> None:
    labels = tuple(draw.draw(st.lists(wild, min_size=4, max_size=4, unique=True)))
    hostile = data._replace(
        labels=labels,
        paths=tuple(f"{i}{draw.draw(wild)}" if i < 9 else path for i, path in enumerate(data.paths)),
        senders=tuple(draw.draw(wild) if i < 4 else sender for i, sender in enumerate(data.senders)),
    )
    # A CSV file cannot hold these; a manifest would not either.
    if any(set("\0\r\n") & set(text) or re.search("[\ud800-\udfff]", text) for text in (*labels, *hostile.paths)):
        return
    if any(set("\0\r\n") & set(text) or re.search("[\ud800-\udfff]", text) for text in hostile.senders):
        return
    text = draw.draw(wild)
    found = [
        read_run(
            runs.write_run(
                tmp_path / f"run-{i}",
                hostile,
                runs.guess(hostile, 0.6, i),
                draw.draw(wild) or "-",
                weights=draw.draw(wild),
                summary=text,
                digest=text,
                evidence=False,
            )
        )
        for i in range(2)
    ]
    found[0].result.metrics["by"].update({text: {text: {"photos": 3, "accuracy": 0.5}}})
    found[0].result.metrics["cost"]["device"] = text
    page = render(found, title=text)
    outline = Outline(page)
    assert outline.count("script") == outline.count("style") == 1
    assert outline.count("b") <= page.count("<b>")
    known = {"class", "id", "href", "rel", "title", "role", "tabindex", "hidden", "type", "checked", "value", "scope"}
    known |= {
        "colspan",
        "src",
        "alt",
        "width",
        "height",
        "decoding",
        "charset",
        "content",
        "name",
        "http-equiv",
        "lang",
    }
    known |= {"d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "viewbox", "transform", "overflow"}
    for name, attributes in outline.tags:
        strange = {key for key in attributes if not key.startswith(("data-", "aria-"))} - known
        assert not strange, (name, strange)
        assert (attributes.get("href") or "#").startswith(("#", "https://github.com/"))
    page.encode()


def test_a_metric_of_a_strange_kind_is_an_empty_cell(make: Make) -> None:
    run = make(0.8)
    kinds: list[Any] = [None, [], {}, "x", True, float("nan"), [None], {"": {}}, [[{}]]]
    for strange in kinds:
        for name in run.result.metrics.keys() - {"weighted_f1", "macro_f1", "accuracy", "photos"}:
            run.result.metrics[name] = strange  # type: ignore[index]
        Outline(render([run, run]))


# What it says


def test_a_clear_winner_is_named_with_its_lead(make: Make) -> None:
    said = words(render([make(0.5, 1, approach="slow"), make(0.98, 2, approach="quick")]))
    assert "With random folds, quick is best: weighted F1" in said
    assert "slow is" in said
    assert "more than chance" in said
    assert "clearly behind" in said


def test_a_lead_within_chance_is_called_that(make: Make) -> None:
    first, second, third = make(0.9, 1, approach="a"), make(0.9, 2, approach="b"), make(0.9, 3, approach="c")
    said = words(render([first, second, third]))
    assert "which is within chance." in said
    assert "Within chance too:" in said
    assert "clearly behind" not in said


def test_what_random_folds_add_is_said(make: Make) -> None:
    kind = {"approach": "a"}
    said = words(render([make(0.98, 1, **kind), make(0.6, 2, protocol="sender", **kind)]))
    assert "On photos of people that the models have never met (sender folds), a reaches" in said
    assert re.search(r"That changes the weighted F1 of a by \+0\.\d+ \(95 % interval \+0", said)


def test_folds_of_other_recipes_are_told_apart_and_no_gap_is_made_of_them(make: Make) -> None:
    random, sender = make(0.98, 1, approach="a"), make(0.6, 2, approach="a", protocol="sender")
    config = {**sender.result.config, "recipe": {**sender.result.config.get("recipe", {}), "members": 4}}
    config_of_one = {**config, "recipe": {**config["recipe"], "members": 1}}
    changed = [
        replace(run, result=replace(run.result, config={**run.result.config, "recipe": other["recipe"]}))
        for run, other in ((random, config_of_one), (sender, config))
    ]
    said = words(render(changed))
    assert "a does not have the same recipe in both kinds of folds (members 1 in random folds, 4 in sender" in said
    assert "That changes" not in said
    assert "the same recipe" not in words(render([random, sender]))


def test_the_published_figure_stands_beside_seventeen_classes_alone(make: Make, tmp_path: Path) -> None:
    seventeen = runs.draw(tmp_path / "17", photos=170, labels=CLASSES)
    said = words(render([make(0.9, data=seventeen)]))
    assert "The published figure of the same kind is 0.88" in said
    assert all(row.model in said for row in PUBLISHED)
    ten = words(render([make(0.9, data=runs.draw(tmp_path / "10", photos=100, labels=TOP_10))]))
    assert "The published figure of the same kind" not in ten
    assert all(row.model in ten for row in PUBLISHED)


def test_what_is_published_of_garments_does_not_stand_beside_other_classes(make: Make, tmp_path: Path) -> None:
    others = runs.draw(tmp_path / "17", photos=170, labels=[f"class {i}" for i in range(17)])
    page = render([make(0.9, data=others), make(0.7, protocol="sender")])
    assert not [row for row in PUBLISHED if row.model in page or row.address in page]
    assert "published figures" not in page


def test_what_cannot_be_compared_is_said(make: Make, tmp_path: Path) -> None:
    fewer = runs.draw(tmp_path / "fewer", photos=40)
    weights = "file: w.safetensors"
    said = words(
        render(
            [
                make(0.9, approach="a", weights=weights),
                make(0.8, 1, approach="b"),
                make(0.8, 2, approach="c", data=fewer, digest="0ther" * 12),
            ]
        )
    )
    assert "Started from nothing: b, c." in said
    assert "Not ranked, because they answer other photos or classes: c." in said
    assert "Made from other data than the rest (5eed5eed): c (0ther0th)." in said
    assert "c is best" not in said


def test_one_run_alone_is_a_report(make: Make) -> None:
    run = make(0.9, epochs=0, evidence=False)
    outline = Outline(render([run]))
    shown = [a.get("id") for t, a in outline.tags if t == "section"]
    assert not {"differences", "curves", "labels"} & set(shown)
    assert {"summary", "table", "classes", "confusions", "trust", "mistakes", "origin"} <= set(shown)


def test_a_label_that_looks_wrong_is_flagged(compared: list[Run]) -> None:
    said = words(render(compared))
    assert "1 label of 60 looks wrong" in said
    assert "2 of 3 approaches say Shirt" in said
    assert "images/photo-008.png" in said


def test_a_label_that_looks_wrong_is_no_mistake_of_those_that_agree_with_it(compared: list[Run]) -> None:
    """Not all approaches need to say so: those that say what the label says are counted right."""
    said = words(render(compared))
    assert "None was changed: in all figures here, that other class counts as a mistake." in said


def test_shares_of_one_column_have_the_same_decimals(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    promises = iter(Promise(0.9, 0.97, True, 0.971, share, 60) for share in (0.54, 0.691))
    monkeypatch.setattr("clothing_classifier.evaluation.report.promise_across", lambda *_: next(promises))
    said = words(render([make(0.9, approach="a"), make(0.6, approach="b")]))
    assert "54.0 %97.1 %" in said
    assert "69.1 %97.1 %" in said


def test_epochs_are_counted_as_the_run_counts_them(make: Make) -> None:
    run = make(0.9, epochs=3)
    assert {point.epoch for point in run.curves} == {1, 2, 3}
    curves = re.search(r'<section id="curves".*?</section>', render([run]), re.DOTALL)
    assert curves
    assert re.findall(r"<tr><td>(\d+)</td>", curves[0]) == ["1", "2", "3"]


def test_trainings_whose_weights_are_averaged_are_drawn_over_each_other(make: Make) -> None:
    run = make(0.9, epochs=6)
    config = {**run.result.config, "recipe": {**run.result.config.get("recipe", {}), "members": 2}}
    run = replace(run, result=replace(run.result, config=config))
    curves = re.search(r'<section id="curves".*?</section>', render([run]), re.DOTALL)
    assert curves
    assert re.findall(r"<tr><td>(\d+)</td>", curves[0]) == ["1", "2", "3"]
    assert "That is each of 2 trainings; the mean of their weights is right in" in curves[0]


def test_an_approach_without_a_protocol_is_named(compared: list[Run]) -> None:
    assert "Without a run of sender folds here, and so in no ranking of these: resnet50." in words(render(compared))


def test_training_is_compared_on_one_device_only(make: Make) -> None:
    def draw(seconds: int, device: str, approach: str) -> Run:
        run = make(0.8, approach=approach)
        cost = {**run.result.metrics["cost"], "training_seconds": seconds, "device": device}
        return replace(run, result=replace(run.result, metrics={**run.result.metrics, "cost": cost}))

    made = [draw(60, "cpu, 1 core", "a"), draw(66_000, "cpu, 1 core", "b"), draw(600, "cuda", "c")]
    page = render(made)
    chart = re.search(r"<svg[^>]*>(?:(?!</svg>).)*minutes of training.*?</svg>", page, re.DOTALL)
    assert chart
    assert set(re.findall(r"\b[abc]: \d+", chart[0])) == {"a: 1", "b: 1100"}
    assert "Training is compared where it ran on the same: cpu, 1 core." in words(page)
    assert "10 min<small>cuda</small>" in page


# Photos


def pictures(page: str) -> list[Image.Image]:
    coded = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in coded]


def test_photos_are_small_and_shown_with_what_was_seen(compared: list[Run], data: runs.Data) -> None:
    page = render(compared, data=data.root)
    found = pictures(page)
    assert len(found) > 20
    assert all(max(picture.size) <= 240 for picture in found)
    said = words(page)
    assert "for Shirt" in said
    assert "Photos are left out" not in said


@pytest.mark.parametrize("without", ["no data", "not wanted"])
def test_without_photos_the_report_says_so(compared: list[Run], data: runs.Data, without: str) -> None:
    page = render(compared, data=None if without == "no data" else data.root, photos=False)
    assert "<img" not in page
    assert "data:image" not in page
    said = words(page)
    assert "Photos are left out of this report." in said
    assert "images/photo-008.png" in said


def test_photos_that_cannot_be_shown_are_named_and_none_comes_from_elsewhere(data: runs.Data, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(data.root, root)
    secret = tmp_path / "secret.png"
    Image.new("RGB", (50, 50), (255, 0, 0)).save(secret)
    probabilities = runs.guess(data, 0.5)
    wrong = np.flatnonzero(probabilities.argmax(1) != np.array(data.truth))
    wrong = wrong[np.argsort(-probabilities.max(1)[wrong])]
    names = dict(zip(wrong.tolist(), ("../secret.png", str(secret), "images/none.png", "images/bad.png"), strict=False))
    (root / "images" / "bad.png").write_text("not a picture")
    moved = data._replace(paths=tuple(names.get(i, path) for i, path in enumerate(data.paths)))
    run = read_run(runs.write_run(tmp_path / "run", moved, probabilities))
    page = render([run], data=root)
    said = words(page)
    assert said.count("No photo: its path leads out of the data's folder.") == 2
    assert "No photo: there is no such file." in said or "No photo: does not exist" in said
    assert said.count("No photo: ") == 4
    assert all(picture.convert("RGB").getpixel((5, 5)) != (255, 0, 0) for picture in pictures(page))


def test_the_report_stays_small_whatever_the_photos(
    compared: list[Run], data: runs.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, bare = len(render(compared, data=data.root)), len(render(compared))
    largest = max(map(len, re.findall(r'src="data:image/webp;base64,[^"]+"', render(compared, data=data.root))))
    monkeypatch.setattr("clothing_classifier.evaluation.report._PHOTO_BYTES", (whole - bare) // 3)
    page = render(compared, data=data.root)
    assert "left out, the report would grow too large" in words(page)
    assert len(page) - bare <= (whole - bare) // 2 + 3 * largest
    Outline(page)


@pytest.mark.parametrize("mode", ["pad", "squash"])
def test_what_speaks_for_a_class_is_lit_and_the_rest_is_dark(mode: str) -> None:
    picture = Image.new("RGB", (120, 60), (200, 180, 160))
    resizing = Resizing(height=64, width=64, mode=mode)
    evidence = np.full((4, 4), -1.0, np.float16)
    evidence[:, 2:] = 3  # the right half
    lit = np.asarray(light_up(picture, (1200, 600), evidence, resizing, 3.0), float)
    assert lit.shape == (60, 120, 3)
    assert lit[:, 100:].mean() == pytest.approx(180, abs=12)
    assert lit[:, :20].max() < 110
    top = np.full((4, 4), -1.0, np.float16)
    top[0] = 3  # padding, where the photo is wider than the input
    bright = np.asarray(light_up(picture, (1200, 600), top, resizing, 3.0), float)
    assert (bright.max() > 150) == (mode == "squash")


@settings(deadline=None)
@given(st.lists(st.floats(width=16), min_size=6, max_size=6), st.floats(-1, 1e4))
def test_any_evidence_makes_a_picture(values: list[float], most: float) -> None:
    evidence = np.array(values, np.float16).reshape(3, 2)
    assert light_up(Image.new("RGB", (7, 9)), (70, 90), evidence, Resizing(24, 18), most).size == (7, 9)


# In a browser

WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective + event.blockedURI));
"""

# Every text that is shown, with the contrast to what is behind it; and what is wider than the page.
CONTRAST = """
() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    if (["SCRIPT", "STYLE", "title", "desc", "OPTION"].includes(element.tagName)) continue;
    const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!text || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const inside = element instanceof SVGElement;
    const [a, b] = [light(parse(inside ? style.fill : style.color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    const where = `${element.tagName}.${element.getAttribute("class")}`;
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${where} ${text.slice(0, 30)}`);
  }
  return [seen, low];
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium, as in: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(compared: list[Run], data: runs.Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(render(compared, data=data.root), "utf-8")
    return file


Visit = Callable[..., "Page"]


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Visit]:
    """A function: opens a report without a network. No complaint, breach of the policy or request may be left."""
    opened: list[tuple[Page, list[str], list[str]]] = []

    def visit(file: Path = report, **options: Any) -> Page:
        context = browser.new_context(offline=True, **{"viewport": {"width": 1280, "height": 900}, **options})
        context.add_init_script(WATCH)
        page = context.new_page()
        complaints: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        opened.append((page, complaints, asked))
        return page

    yield visit
    for page, complaints, asked in opened:
        scripted = page.evaluate("window.violations ?? []")
        page.context.close()
        assert scripted == []
        assert complaints == []
        assert [url for url in asked if not url.startswith("data:")] == asked[:1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_page_and_all_text_can_be_read(visit: Visit, width: int, scheme: str) -> None:
    page = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate(
        """[...document.querySelectorAll("main *")].filter((e) => !e.closest(".scroll, svg, .skip") &&
        e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 90))"""
    )
    assert cut == [] or width >= 1248  # the widest table may use the margins
    seen, low = page.evaluate(CONTRAST)
    assert seen > 300
    assert low == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) < 64) == (scheme == "dark")


def test_in_print_all_is_light_and_nothing_is_cut_off(visit: Visit) -> None:
    page = visit(color_scheme="dark", viewport={"width": 703, "height": 1000})  # what A4 leaves between the margins
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')").strip() == "#fff"
    cut = page.evaluate(
        """[...document.querySelectorAll("main *")].filter((e) => e.checkVisibility() && !e.closest("svg") &&
        (e.getBoundingClientRect().right > innerWidth + 1)).map((e) => e.outerHTML.slice(0, 90))"""
    )
    assert cut == []
    shown = page.evaluate("[...document.querySelectorAll('.matrix')].filter((e) => e.checkVisibility()).length")
    assert shown == 5, "a reader on paper has no menu to choose from"
    assert page.locator("#origin dd").first.is_visible()
    assert not page.locator(".chooser").is_visible()
    _, low = page.evaluate(CONTRAST)
    assert low == []
    document = page.pdf(prefer_css_page_size=True, print_background=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", document))
    assert len(SECTIONS) - 3 <= pages <= 30


def test_without_scripts_everything_is_there(visit: Visit) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator(".matrix").count() == 5
    assert all(matrix.is_visible() for matrix in page.locator(".matrix").all())
    assert not page.locator(".chooser").is_visible()
    assert page.locator("table.sortable button").count() == 0


def test_a_table_is_sorted_by_keyboard(visit: Visit) -> None:
    page = visit()
    table = page.locator("#table table")
    values = "(table) => [...table.tBodies[0].rows].map((row) => row.cells[7].dataset.value ?? '')"
    written = table.evaluate(values)
    button = table.get_by_role("button", name="accuracy")
    button.focus()
    page.keyboard.press("Enter")
    known = [float(value) for value in written if value]
    empty = [""] * (len(written) - len(known))
    texts = table.evaluate(values)
    assert [float(value) for value in texts if value] == sorted(known, reverse=True)
    assert texts[len(known) :] == empty
    assert table.locator("th[aria-sort=descending]").count() == 1
    page.keyboard.press("Enter")
    assert [float(value) for value in table.evaluate(values) if value] == sorted(known)
    page.keyboard.press("Enter")
    assert table.evaluate(values) == written
    assert table.locator("th[aria-sort]").count() == 0

    named = "(table) => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent).filter((text) => text)"
    weights = table.evaluate(named)
    assert weights != sorted(weights, key=str.casefold)
    table.get_by_role("button", name="weights").click()
    assert table.evaluate(named) == sorted(weights, key=str.casefold)
    assert table.locator("th[aria-sort=ascending]").count() == 1
    table.get_by_role("button", name="weights").click()
    assert table.evaluate(named) == sorted(weights, key=str.casefold, reverse=True)
    assert table.locator("th[aria-sort=descending]").count() == 1


def test_a_series_is_hidden_everywhere_and_comes_back(visit: Visit) -> None:
    page = visit()
    box = page.locator(".chips input").first
    parts = page.locator('[data-series="0"]')
    before = [part.is_visible() for part in parts.all()]
    assert sum(before) > 10
    box.focus()
    page.keyboard.press("Space")
    assert not any(part.is_visible() for part in parts.all())
    assert page.locator('[data-series="1"]').first.is_visible()
    page.keyboard.press("Space")
    assert [part.is_visible() for part in parts.all()] == before


def test_a_matrix_is_chosen_and_read_as_sentences(visit: Visit, compared: list[Run]) -> None:
    page = visit()
    assert page.locator(".matrix:visible").count() == 1
    page.get_by_label("Run", exact=False).and_(page.locator("select")).select_option("custom-cnn, random folds")
    matrix = page.locator(".matrix:visible")
    assert matrix.count() == 1
    run = next(run for run in compared if run.result.approach == "custom-cnn" and run.result.protocol == "random")
    shown = matrix.locator("tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].slice(1).map((cell) => Number(cell.textContent)))"
    )
    assert shown == run.confusion.tolist()
    matrix.locator("tbody td").first.hover()
    right, whole = run.confusion[0, 0], run.confusion[0].sum()
    reading = page.locator(".reading")
    assert f"{right} of {whole} photos of Dress" in reading.inner_text()
    matrix.locator("tbody td").first.focus()
    page.keyboard.press("ArrowRight")
    assert f"{run.confusion[0, 1]} of {whole} photos of Dress" in reading.inner_text()
    assert reading.inner_text().endswith("are called Pants.")


def test_photos_are_shown_under_the_policy(visit: Visit) -> None:
    page = visit()
    loaded = page.evaluate(
        "Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth, () => 0)))"
    )
    assert len(loaded) > 20
    assert all(loaded)
    assert page.evaluate("[...document.images].every((image) => image.alt)")


def test_hostile_names_do_nothing_in_a_browser(visit: Visit, data: runs.Data, tmp_path: Path) -> None:
    paths = tuple(f"{HOSTILE[i % 4]}{i}" if i % 2 else path for i, path in enumerate(data.paths))
    hostile = data._replace(labels=tuple(HOSTILE), paths=paths)
    found = []
    for i in range(2):
        place = runs.write_run(tmp_path / str(i), hostile, runs.guess(hostile, 0.5, i), HOSTILE[i], summary=HOSTILE[0])
        found.append(read_run(place))
    file = tmp_path / "hostile.html"
    file.write_text(render(found, title=HOSTILE[2], data=data.root), "utf-8")
    page = visit(file)
    assert page.locator("h1").inner_text() == HOSTILE[2]
    assert page.locator(".matrix:visible th[scope=row]").first.inner_text().startswith(HOSTILE[0])
    page.locator(".matrix:visible tbody td").first.hover()
    assert HOSTILE[0] in page.locator(".reading").inner_text()
