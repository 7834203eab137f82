"""The page, used as a person does: a real service on loopback, and Chromium."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Browser, Dialog, Locator, Page, expect, sync_playwright

from clothing_classifier import Classifier
from clothing_classifier.card import ModelCard
from clothing_classifier.classifier import Prediction

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.jpg"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
PATIENCE = 60_000  # ms; how long the page may take on a busy machine

# What the page did that nobody sees: what it said to a screen reader, and the addresses of blobs that it holds.
WATCH = """
window.said = []; window.held = new Set(); window.violations = [];
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
  violations.push(`${violatedDirective} ${blockedURI}`);
});
const create = URL.createObjectURL, revoke = URL.revokeObjectURL;
URL.createObjectURL = (blob) => { const url = create(blob); held.add(url); return url; };
URL.revokeObjectURL = (url) => { held.delete(url); revoke(url); };
addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
  said.push(document.getElementById("live").textContent);
}).observe(document.getElementById("live"), { childList: true }));
"""


@contextmanager
def serving(threshold: float, *options: str, port: int = 0, key: str | None = None) -> Iterator[str]:
    """A service of the shipped model; gives its address."""
    command = [sys.executable, "-m", "clothing_classifier", "serve", "--threads", "1", "--threshold", str(threshold)]
    environment = {name: value for name, value in os.environ.items() if name != "CLOTHING_API_KEY"}
    if key is not None:
        environment["CLOTHING_API_KEY"] = key
    process = subprocess.Popen(
        [*command, "--port", str(port), *options], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stderr
        lines = []
        for line in process.stderr:
            lines.append(line)
            if address := re.search(r"http://\S+/", line):
                break
        else:
            pytest.fail("the service did not start: " + "".join(lines))
        yield address[0]
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=20)
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def predictions() -> dict[str, Prediction]:
    """What the shipped model says of the examples, with a threshold that half of them reach."""
    classifier = Classifier.load()
    found = {path.name: classifier.predict(path) for path in EXAMPLES}
    middle = statistics.median(prediction.probability for prediction in found.values())
    return {name: Prediction(one.labels, one.probabilities, middle) for name, one in found.items()}


@pytest.fixture(scope="module")
def threshold(predictions: dict[str, Prediction]) -> float:
    return next(iter(predictions.values())).threshold


@pytest.fixture(scope="module")
def service(threshold: float) -> Iterator[str]:
    with serving(threshold) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium, as in: apt-get install chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, service: str) -> Iterator[Visit]:
    """A function: opens the page. At the end, nothing in the console and no breach of the policy may be left."""
    opened: list[tuple[Page, list[str], str]] = []

    def visit(address: str | None = None, *, expected: str = "(?!)", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.add_init_script(WATCH)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        opened.append((page, complaints, expected))
        page.goto(address or service)
        return page

    yield visit
    for page, complaints, expected in opened:
        violations = page.evaluate("violations")
        page.context.close()
        assert violations == []
        assert [complaint for complaint in complaints if not re.search(expected, complaint)] == []


def pick(page: Page, *paths: Path) -> None:
    page.set_input_files("#pick", [str(path) for path in paths])


def hold_requests(page: Page) -> list[Any]:
    """The list in which requests for predictions wait, from now on, for what the test does with them."""
    held: list[Any] = []
    page.route("**/v1/predictions*", lambda route: held.append(route))
    return held


def wait_for_requests(page: Page, held: list[Any], count: int) -> None:
    """Wait until ``count`` requests are held: the page shows a photo as sent before the browser hands it over."""
    deadline = time.monotonic() + PATIENCE / 1000
    while len(held) < count and time.monotonic() < deadline:
        page.wait_for_timeout(10)
    assert len(held) == count


def card(page: Page, name: str) -> Locator:
    return page.locator(".photo").filter(has=page.locator(".name").get_by_text(name, exact=True))


def focus(page: Page, name: str) -> None:
    card(page, name).locator("article").focus()


def focused(page: Page) -> str:
    name = page.evaluate("document.activeElement.querySelector('.name')?.textContent ?? document.activeElement.id")
    return str(name)


def wait_until_done(page: Page, photos: int) -> None:
    expect(page.locator("#results-heading")).to_have_text(re.compile(f"^{photos} photos?$"))
    expect(page.locator("#progress")).to_have_class("done", timeout=PATIENCE * max(1, photos / 20))


def names(page: Page) -> list[str]:
    return page.locator(".photo .name").all_text_contents()


def drop(page: Page, *paths: Path) -> None:
    """Drop files or folders from outside of the browser."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 400, "data": data})
        if kind == "dragOver":
            expect(page.get_by_text("Drop to classify")).to_be_visible()
    expect(page.get_by_text("Drop to classify")).to_be_hidden()


def download(page: Page) -> list[dict[str, str]]:
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    content = Path(waiting.value.path()).read_bytes()
    assert re.fullmatch(r"clothing-\d{4}-\d\d-\d\d-\d{4}\.csv", waiting.value.suggested_filename)
    assert content.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


def percent(probability: float) -> str:
    if 0 < probability < 0.01:
        return "<1\u202f%"
    if 0.99 < probability < 1:
        return ">99\u202f%"
    return f"{int(100 * probability + 0.5)}\u202f%"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_photo_shows_what_the_model_says(
    visit: Visit, predictions: dict[str, Prediction], threshold: float, scheme: str
) -> None:
    page = visit(color_scheme=scheme)
    expect(page.get_by_role("heading", name="Drop photos of clothing here")).to_be_visible()
    pick(page, *EXAMPLES)
    wait_until_done(page, len(EXAMPLES))
    assert names(page) == [path.name for path in EXAMPLES]
    for name, prediction in predictions.items():
        shown = card(page, name)
        heading = shown.get_by_role("heading")
        if prediction.sure:
            expect(heading).to_have_text(prediction.label + percent(prediction.probability))
            listed = prediction.top(4)[1:]
        else:
            expect(heading).to_have_text("Not sure")
            expect(shown).to_contain_text(f"Best guesses; it needs {percent(threshold)}")
            listed = prediction.top(3)
        rows = shown.locator(".guess")
        assert rows.locator(".label").all_text_contents() == [label for label, _ in listed]
        assert rows.locator(".share").all_text_contents() == [percent(share) for _, share in listed]
        # At once, as a card is painted anew when its picture comes.
        meters = shown.evaluate(
            """async card => {
              card.scrollIntoView();
              await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
              return [...card.querySelectorAll(".guess .meter")].map(m => [m.firstChild.offsetWidth, m.offsetWidth]);
            }"""
        )
        for (filled, width), (_, share) in zip(meters, listed, strict=True):
            assert width > 0
            assert filled == pytest.approx(max(2, share * width), abs=1)
        expect(shown.locator("img")).to_be_visible()
    sure = sum(prediction.sure for prediction in predictions.values())
    expect(page.locator("#tally")).to_have_text(f"{sure} sure, {len(EXAMPLES) - sure} not sure")
    light, dark = (page.evaluate(f"getComputedStyle(document.body).{it}") for it in ("backgroundColor", "color"))
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (light, dark)]
    assert (brightness[0] > brightness[1]) == (scheme == "light")


def test_files_and_folders_can_be_dropped(visit: Visit, tmp_path: Path) -> None:
    folder = tmp_path / "spring"
    (folder / "deep").mkdir(parents=True)
    for name in ("10.jpg", "9.jpg", "deep/1.jpg", ".hidden.jpg"):
        shutil.copy(EXAMPLES[0], folder / name)
    (folder / "prices.txt").write_text("9.99")
    page = visit()
    drop(page, folder, EXAMPLES[1])
    wait_until_done(page, 4)
    assert page.locator(".photo .name").evaluate_all("all => all.map(name => name.title)") == [
        "spring/9.jpg",
        "spring/10.jpg",
        "spring/deep/1.jpg",
        EXAMPLES[1].name,
    ]
    expect(page.locator("#toast")).to_contain_text("4 photos added. 1 other file was left out.")
    drop(page, EXAMPLES[2])
    wait_until_done(page, 5)


def test_a_folder_can_be_picked(visit: Visit, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES[0], tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("none")
    page = visit()
    with page.expect_file_chooser() as waiting:
        page.get_by_role("button", name="Choose a folder").click()
    waiting.value.set_files(tmp_path)
    wait_until_done(page, 1)
    expect(page.locator("#toast")).to_contain_text("1 photo added. 1 other file was left out.")


def test_the_keyboard_is_not_lost_when_photos_come(visit: Visit) -> None:
    page = visit()
    button = page.get_by_role("button", name="Choose photos")
    button.focus()
    with page.expect_file_chooser() as waiting:
        button.press("Enter")
    waiting.value.set_files(EXAMPLES[:1])
    expect(page.locator(".photo")).to_have_count(1)
    assert page.evaluate("document.activeElement.id") == "main"


def test_pictures_can_be_pasted(visit: Visit) -> None:
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    file = io.BytesIO()
    with Image.open(EXAMPLES[0]) as picture:
        picture.save(file, "PNG")
    page.evaluate(
        """async (text) => {
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const item = new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) });
          await navigator.clipboard.write([item]);
        }""",
        base64.b64encode(file.getvalue()).decode(),
    )
    page.keyboard.press("Control+V")
    wait_until_done(page, 1)
    page.keyboard.press("Control+V")
    wait_until_done(page, 2)
    assert names(page) == ["pasted 1.png", "pasted 2.png"]


def test_cells_of_a_spreadsheet_are_text_in_a_field_and_a_picture_elsewhere(visit: Visit) -> None:
    """Such a program puts the cells on the clipboard as text, and as a picture, too."""
    page = visit()
    pick(page, EXAMPLES[0])
    wait_until_done(page, 1)
    paste = """(target) => {
      const data = new DataTransfer();
      data.setData("text/plain", "dress");
      data.items.add(new File([new Uint8Array(9)], "image.png", { type: "image/png" }));
      const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
      return document.querySelector(target).dispatchEvent(event);
    }"""
    assert page.evaluate(paste, "#search") is True, "left to the field"
    assert page.evaluate(paste, "#main") is False
    expect(page.locator(".photo")).to_have_count(2)


def test_a_phone_takes_photos(visit: Visit, predictions: dict[str, Prediction]) -> None:
    page = visit(**PHONE)
    assert page.locator("#camera").get_attribute("capture") == "environment"
    with page.expect_file_chooser() as waiting:
        page.get_by_role("button", name="Take a photo").tap()
    waiting.value.set_files(EXAMPLES[0])
    wait_until_done(page, 1)
    expect(page.get_by_role("button", name="Take photo")).to_be_visible()
    expect(page.get_by_role("button", name="Add folder")).to_be_hidden()
    pick(page, *EXAMPLES[1:4])
    wait_until_done(page, 4)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown = card(page, EXAMPLES[1].name)
    chooser = page.get_by_role("dialog", name=f"What is {EXAMPLES[1].name}?")
    shown.get_by_role("button", name="Change the category").tap()
    chooser.get_by_role("button", name="Close").tap()
    expect(chooser).to_be_hidden()
    shown.get_by_role("button", name="Change the category").tap()
    label = next(label for label in predictions[EXAMPLES[1].name].labels[4:] if label != "T-Shirt")
    page.locator(f"#chooser [data-label='{label}']").tap()
    expect(shown.get_by_role("heading")).to_contain_text(label)
    too_small = page.locator(".photo button:visible").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect()).filter((box) => box.width < 24 || box.height < 24).length"
    )
    assert too_small == 0


def test_a_tablet_may_have_a_keyboard(visit: Visit) -> None:
    page = visit(**PHONE)
    pick(page, EXAMPLES[0])
    wait_until_done(page, 1)
    focus(page, EXAMPLES[0].name)
    page.keyboard.press("Enter")
    expect(page.locator("#chooser")).to_be_focused()
    page.keyboard.type("underS")
    page.keyboard.press("Enter")
    expect(card(page, EXAMPLES[0].name).get_by_role("heading")).to_contain_text("Undershirt")


def test_photos_of_a_camera_are_told_apart_and_seen(visit: Visit, tmp_path: Path) -> None:
    page = visit(**PHONE)
    for number in range(4):
        path = tmp_path / str(number) / "image.jpg"  # as some telephones call every photo
        path.parent.mkdir()
        shutil.copy(EXAMPLES[number], path)
        page.locator("#camera").set_input_files(path)
        expect(page.locator(".photo")).to_have_count(number + 1)
        expect(page.locator(".photo").last).to_be_in_viewport()
    wait_until_done(page, 4)
    for name in ("image.jpg", "image 2.jpg", "image 3.jpg", "image 4.jpg"):
        expect(card(page, name)).to_be_attached()


def test_a_photo_is_taken_once_and_two_of_one_name_are_told_apart(visit: Visit, tmp_path: Path) -> None:
    for number, folder in enumerate(("front", "back")):
        (tmp_path / folder).mkdir()
        shutil.copy(EXAMPLES[number], tmp_path / folder / "1.jpg")
    page = visit()
    pick(page, *EXAMPLES[:3])
    pick(page, *EXAMPLES[:3], tmp_path / "front" / "1.jpg")
    expect(page.locator("#toast")).to_have_text(re.compile(r"^1 photo added\. 3 photos are here already\."))
    for _ in range(2):  # known by the name that it came with
        pick(page, tmp_path / "back" / "1.jpg")
    wait_until_done(page, 5)
    expect(page.locator("#toast")).to_have_text(re.compile(r"^1 photo is here already\."))
    page.wait_for_timeout(400)
    assert "1 photo is here already." in " ".join(page.evaluate("said"))
    assert [row["name"] for row in download(page)] == [*(path.name for path in EXAMPLES[:3]), "1.jpg", "1 2.jpg"]


def test_what_could_not_be_read_can_be_added_again(visit: Visit, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(EXAMPLES[0].read_bytes()[:3000])
    page = visit()
    pick(page, broken)
    wait_until_done(page, 1)
    pick(page, broken)
    wait_until_done(page, 2)


def test_what_cannot_be_read_says_why_and_the_rest_goes_on(
    visit: Visit, predictions: dict[str, Prediction], tmp_path: Path
) -> None:
    broken, text, empty = tmp_path / "broken.jpg", tmp_path / "text.jpg", tmp_path / "empty.png"
    broken.write_bytes(EXAMPLES[0].read_bytes()[:3000])
    text.write_text("not a picture")
    empty.write_bytes(b"")
    page = visit()
    pick(page, EXAMPLES[0], broken, EXAMPLES[1], text, empty)
    wait_until_done(page, 5)
    reasons = {broken: "This file is cut short", text: "This file is not a picture", empty: "This file is empty"}
    for path, reason in reasons.items():
        expect(card(page, path.name).get_by_role("heading")).to_have_text("Could not be read")
        expect(card(page, path.name).locator(".reason")).to_contain_text(reason)
    for path in EXAMPLES[:2]:
        expect(card(page, path.name)).to_contain_text(predictions[path.name].label)
    expect(page.locator("#tally")).to_contain_text("3 failed")
    page.get_by_role("radio", name="Failed 3").check(force=True)
    assert names(page) == [path.name for path in reasons]
    expect(page.locator("#results-heading")).to_have_text("3 of 5 photos")
    rows = download(page)
    assert [row["error"] != "" for row in rows] == [False, True, False, True, True]
    assert {row["answer"] for row in rows if row["error"]} == {""}


def test_each_reason_is_a_sentence(visit: Visit, tmp_path: Path) -> None:
    raw = tmp_path / "raw.tif"
    Image.new("RGB", (8, 12)).save(raw, tiffinfo={254: 1})
    page = visit(expected="413|500")
    pick(page, raw)
    wait_until_done(page, 1)
    expect(card(page, raw.name).locator(".reason")).to_have_text(
        "This file begins with a preview only, as cameras' raw files do; export it as JPEG."
    )

    def failed(kind: str, reason: str) -> dict[str, Any]:
        results = [{"name": "a", "error": {"kind": kind, "reason": reason}}]
        return {"json": {"model": {"threshold": 0.5}, "results": results}}

    crash, missed = "makes its decoder fail; export it again", "was not reached in time; send it again"
    problem = {"type": "/docs#internal", "title": "", "status": 500, "detail": "The service failed on this request."}
    cases: list[tuple[dict[str, Any], str, str]] = [
        (failed("unreadable", crash), "Could not be read", f"This file {crash}."),
        (failed("not-reached", missed), "Not classified", f"It {missed}."),
        ({"status": 500, "json": problem}, "Not classified", "The service failed on this request."),
        (
            {"status": 413, "body": "<p>"},
            "Could not be read",
            "This file is larger than a server between this page and the service lets pass; make it smaller, or ask "
            "who runs it.",
        ),
    ]
    answers = iter([answer for answer, _, _ in cases])
    page.route("**/v1/predictions*", lambda route: route.fulfill(**next(answers)))
    for path, (_, heading, reason) in zip(EXAMPLES, cases, strict=False):
        pick(page, path)
        shown = card(page, path.name)
        expect(shown.locator(".reason")).to_have_text(reason)
        expect(shown.get_by_role("heading")).to_have_text(heading)
        expect(shown.get_by_role("button", name="Try again")).to_have_count(int(heading == "Not classified"))


def test_photos_over_the_limit_are_not_sent(visit: Visit, threshold: float, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(EXAMPLES[0].read_bytes() + bytes(2_000_000))
    with serving(threshold, "--max-bytes", "1000000") as address:
        page = visit(address)
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url))
        pick(page, large)
        wait_until_done(page, 1)
        expect(card(page, "large.jpg").locator(".reason")).to_have_text(
            re.compile(r"This file is 2\.\d\s?MB; this service takes photos of up to 1\.0\s?MB")
        )
        assert not any("predictions" in url for url in sent)


def test_filters_sorting_and_counts(visit: Visit, predictions: dict[str, Prediction]) -> None:
    page = visit()
    pick(page, *EXAMPLES)
    wait_until_done(page, len(EXAMPLES))
    unsure = [name for name, one in predictions.items() if not one.sure]
    page.get_by_role("radio", name=f"Not sure {len(unsure)}").check(force=True)
    assert names(page) == unsure
    page.get_by_role("radio", name=f"All {len(EXAMPLES)}").check(force=True)

    page.get_by_label("Sort by").select_option("Least confident first")
    expect(page.locator(".photo .name").first).to_have_text(min(predictions, key=lambda n: predictions[n].probability))
    assert names(page) == sorted(predictions, key=lambda name: predictions[name].probability)
    page.get_by_label("Sort by").select_option("Most confident first")
    expect(page.locator(".photo .name").last).to_have_text(min(predictions, key=lambda n: predictions[n].probability))
    page.get_by_label("Sort by").select_option("Category")
    by_label = sorted(predictions, key=lambda name: predictions[name].label.lower())
    expect(page.locator(".photo .name")).to_have_text(by_label)

    label = predictions[unsure[0]].label
    same = [one for one in predictions.values() if one.label == label]
    facet = page.locator(".facet").filter(has=page.locator(f"input[name=category][value='{label}']"))
    expect(facet.locator(".count > span").first).to_have_text(str(sum(one.sure for one in same)))
    expect(facet.locator(".guessed")).to_have_text(f"+{sum(not one.sure for one in same)} not sure")
    facet.click()
    assert {predictions[name].label for name in names(page)} == {label}

    page.get_by_label("Search").fill("no such photo")
    expect(page.get_by_text("No photo fits these filters.")).to_be_visible()
    expect(page.locator("#live")).to_have_text("0 photos shown.")
    page.get_by_role("button", name="Show all photos").press("Enter")
    expect(page.locator(".photo")).to_have_count(len(EXAMPLES))
    assert page.evaluate("document.activeElement.id") == "main"
    page.get_by_label("Search").fill(EXAMPLES[3].name)
    expect(page.locator(".photo")).to_have_count(1)


def test_a_name_is_found_however_its_accents_and_hyphens_are_typed(visit: Visit, tmp_path: Path) -> None:
    """Of one "é", a Mac's file names are an "e" and its accent."""
    paths = [tmp_path / f"{name}.jpg" for name in ("cafe\u0301-1", "T-Shirt 👗", "other")]
    for path in paths:
        shutil.copy(EXAMPLES[0], path)
    page = visit()
    pick(page, *paths)
    wait_until_done(page, len(paths))
    for typed, name in (("Caf\u00e9-1", paths[0].name), ("cafe", paths[0].name), ("👗", paths[1].name)):
        page.get_by_label("Search").fill(typed)
        expect(page.locator(".photo .name")).to_have_text([name])


def test_a_category_is_corrected_by_keyboard(visit: Visit, predictions: dict[str, Prediction]) -> None:
    page = visit(viewport={"width": 1280, "height": 900})
    pick(page, *EXAMPLES[:8])
    wait_until_done(page, 8)
    names = [path.name for path in EXAMPLES]
    columns = page.evaluate("getComputedStyle(document.getElementById('grid')).gridTemplateColumns.split(' ').length")

    focus(page, names[0])
    for key, at in [("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns), ("ArrowUp", 0), ("End", 7)]:
        page.keyboard.press(key)
        assert focused(page) == names[at]
    page.keyboard.press("ArrowRight")
    assert focused(page) == names[7]
    page.keyboard.press("Home")
    assert focused(page) == names[0]

    # A letter opens the list and is its first letter; "tshirt" finds "T-Shirt".
    for letter in "tshirt":
        page.keyboard.press(letter)
    expect(page.get_by_role("combobox", name="What is")).to_have_value("tshirt")
    expect(page.locator("#chooser").get_by_role("option")).to_have_text(["T-Shirt"])
    page.keyboard.press("Enter")
    first = card(page, names[0])
    expect(first.get_by_role("heading")).to_contain_text("T-Shirt")
    expect(first).to_contain_text("Your answer")
    assert focused(page) == names[0]
    expect(page.locator("#live")).to_contain_text(f"{names[0]} is now T-Shirt.")

    # Enter opens the whole list at the present category; Escape leaves everything as it is.
    page.keyboard.press("Enter")
    expect(page.locator("#chooser").get_by_role("option")).to_have_count(len(Classifier.load().labels))
    expect(page.locator("#chooser").get_by_role("option", selected=True)).to_contain_text("T-Shirt")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert focused(page) == names[0]
    expect(first.get_by_role("heading")).to_contain_text("T-Shirt")

    # A digit takes a guess, and undo goes back step by step.
    page.keyboard.press("ArrowRight")
    second = predictions[names[1]]
    guess = second.labels[1] if second.sure else second.labels[0]
    page.keyboard.press("1")
    expect(card(page, names[1]).get_by_role("heading")).to_contain_text(guess)
    expect(page.get_by_role("radio", name="Corrected 2")).to_be_visible()
    page.keyboard.press("Control+z")
    expect(card(page, names[1])).not_to_contain_text("Your answer")
    page.keyboard.press("Control+z")
    expect(first).not_to_contain_text("Your answer")
    assert focused(page) == names[0]

    for key in ("Delete", "Backspace"):
        page.keyboard.press(key)
        expect(page.locator(".photo")).to_have_count(7)
        assert focused(page) == names[1]
        page.locator("#toast").get_by_role("button", name="Undo").click()
        expect(page.locator(".photo")).to_have_count(8)
        assert page.locator(".photo .name").all_text_contents() == names[:8]
        focus(page, names[0])
    page.get_by_label("Search").fill("a")
    page.keyboard.press("Backspace")
    expect(page.get_by_label("Search")).to_have_value("")
    expect(page.locator(".photo")).to_have_count(8)


def test_the_next_photo_is_reached_when_a_filter_takes_one_away(
    visit: Visit, predictions: dict[str, Prediction]
) -> None:
    page = visit()
    pick(page, *EXAMPLES)
    wait_until_done(page, len(EXAMPLES))
    unsure = [name for name, one in predictions.items() if not one.sure]
    page.get_by_role("radio", name=f"Not sure {len(unsure)}").check(force=True)
    focus(page, unsure[0])
    page.keyboard.press("1")
    expect(page.locator(".photo")).to_have_count(len(unsure) - 1)
    assert focused(page) == unsure[1]


def test_tab_meets_one_card_and_not_all(visit: Visit) -> None:
    page = visit()
    pick(page, *EXAMPLES)
    wait_until_done(page, len(EXAMPLES))
    expect(page.locator("article[tabindex='0']")).to_have_count(1)
    page.get_by_label("Sort by").focus()
    page.keyboard.press("Tab")
    assert focused(page) == EXAMPLES[0].name
    stops = 0
    while page.evaluate("document.activeElement.closest('.photo') !== null"):
        page.keyboard.press("Tab")
        stops += 1
        assert stops < 12


@pytest.mark.parametrize("size", [(320, 256), (700, 450)])
def test_what_has_the_keyboard_is_under_neither_bar(visit: Visit, size: tuple[int, int]) -> None:
    page = visit(viewport={"width": size[0], "height": size[1]})
    pick(page, *EXAMPLES[:4])
    wait_until_done(page, 4)
    focus(page, EXAMPLES[0].name)
    for key in ["Tab"] * 7 + ["ArrowDown"] + ["Tab"] * 7 + ["Shift+Tab"] * 7 + ["ArrowUp"] + ["Shift+Tab"] * 5:
        page.keyboard.press(key)
        covered = page.evaluate(
            """() => {
              if (!document.activeElement.matches("#main :not(article, .open)")) return false; // those may be too tall
              const { left, top, width, height } = document.activeElement.getBoundingClientRect();
              return [1, height - 1].some((y) => document.elementFromPoint(left + width / 2, top + y)?.closest(".bar"));
            }"""
        )
        assert not covered, page.evaluate("document.activeElement.outerHTML")


def test_the_evidence_is_drawn_over_the_photo(visit: Visit, predictions: dict[str, Prediction]) -> None:
    page = visit()
    pick(page, *EXAMPLES[:3])
    wait_until_done(page, 3)
    expect(page.locator(".photo canvas:visible")).to_have_count(0)
    page.get_by_role("switch", name="Show evidence").check(force=True)
    expect(page.locator(".photo canvas:visible")).to_have_count(3)
    expect(page.locator("#legend")).to_be_visible()
    canvas = card(page, EXAMPLES[0].name).locator("canvas")
    expect(canvas).to_have_attribute("data-drawn", "")
    width, height, darkest, brightest = canvas.evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const light = [];
          for (let i = 0; i < data.length; i += 4) light.push(data[i] + data[i + 1] + data[i + 2]);
          return [canvas.width, canvas.height, Math.min(...light), Math.max(...light)];
        }"""
    )
    with Image.open(EXAMPLES[0]) as photo:
        assert width / height == pytest.approx(photo.width / photo.height, rel=0.02)
    assert darkest < 150
    assert brightest > 450
    one = card(page, EXAMPLES[0].name).get_by_role("button", name="Evidence for")
    expect(one).to_have_attribute("aria-pressed", "true")
    one.click()
    expect(page.locator(".photo canvas:visible")).to_have_count(2)


@pytest.mark.parametrize("name", ["photo.heic", "renamed.jpg"])
def test_a_photo_that_the_browser_cannot_show_is_shown_all_the_same(visit: Visit, tmp_path: Path, name: str) -> None:
    """A telephone's HEIC: as the service has seen it, with the evidence over it."""
    shutil.copy(Path(__file__).parent / "data" / "images" / "quadrants.heic", tmp_path / name)
    page = visit()
    pick(page, tmp_path / name, EXAMPLES[0])
    wait_until_done(page, 2)
    shown = card(page, name)
    expect(shown.locator("img")).to_be_visible()
    assert shown.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0
    expect(shown.locator(".see")).to_be_attached()
    assert shown.locator(".see").evaluate("(one) => !one.hidden")
    focus(page, name)
    page.keyboard.press("Space")
    expect(page.locator("#viewer-image")).to_be_visible()
    assert page.locator("#viewer-image").evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0
    expect(page.locator("#viewer-none")).to_be_hidden()
    assert card(page, EXAMPLES[0].name).locator("img").get_attribute("src").startswith("blob:")  # type: ignore[union-attr]


def test_what_cannot_be_shown_is_told_in_the_large_view_as_soon_as_that_is_known(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "damaged.heic").write_bytes((Path(__file__).parent / "data/images/quadrants.heic").read_bytes()[:400])
    page = visit()
    page.evaluate(
        """() => {
          window.createImageBitmap = () => new Promise((_, fail) => { window.decide = () => fail(new Error()); });
        }"""
    )
    pick(page, tmp_path / "damaged.heic")
    focus(page, "damaged.heic")
    page.keyboard.press("Space")
    expect(page.locator("#viewer-image")).to_be_attached()
    expect(page.locator("#viewer-none")).to_be_hidden()
    page.evaluate("decide()")
    expect(page.locator("#viewer-none")).to_be_visible()
    expect(page.locator("#viewer-image")).to_be_hidden()


def test_evidence_that_comes_late_is_not_drawn_over_another_photo(visit: Visit) -> None:
    page = look_at(visit, 1)
    canvas = page.locator("#viewer-heat")
    page.locator("#viewer-evidence").check(force=True)
    expect(canvas).to_have_attribute("data-drawn", "")
    right = canvas.evaluate("(canvas) => canvas.toDataURL()")
    page.keyboard.press("ArrowLeft")
    page.locator("#viewer-evidence").check(force=True)
    expect(canvas).to_be_visible()
    page.keyboard.press("Escape")
    page.evaluate(
        """() => {
          const make = window.createImageBitmap;
          window.createImageBitmap = (...given) => {
            window.createImageBitmap = make; // the first one alone is late
            window.late = new Promise((resolve) => setTimeout(resolve, 500)).then(() => make(...given));
            return window.late;
          };
        }"""
    )
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => late.then(() => true)")
    page.wait_for_timeout(200)
    assert canvas.evaluate("(canvas) => canvas.toDataURL()") == right


def look_at(visit: Visit, number: int) -> Page:
    """Add three photos, and open one of them in the large view."""
    page = visit()
    pick(page, *EXAMPLES[:3])
    wait_until_done(page, 3)
    focus(page, EXAMPLES[number].name)
    page.keyboard.press("Space")
    return page


def test_a_closer_look(visit: Visit, predictions: dict[str, Prediction]) -> None:
    page = look_at(visit, 0)
    viewer = page.get_by_role("dialog", name=EXAMPLES[0].name)
    expect(viewer).to_be_visible()
    expect(viewer).to_contain_text("1 of 3")
    page.keyboard.press("ArrowRight")
    viewer = page.get_by_role("dialog", name=EXAMPLES[1].name)
    expect(viewer).to_contain_text(predictions[EXAMPLES[1].name].label)
    viewer.get_by_role("switch").check(force=True)
    expect(viewer.locator("canvas")).to_be_visible()
    label = next(label for label in Classifier.load().labels if label.startswith("H"))
    page.keyboard.press("h")
    page.keyboard.press("Enter")
    expect(viewer.get_by_role("heading", level=3)).to_contain_text(label)
    page.keyboard.press("Escape")
    assert focused(page) == EXAMPLES[1].name
    expect(card(page, EXAMPLES[1].name)).to_contain_text("Your answer")


def test_what_was_done_in_the_large_view_can_be_undone_there(visit: Visit) -> None:
    page = look_at(visit, 0)
    undo = page.locator("#toast").get_by_role("button", name="Undo")
    page.keyboard.press("1")
    expect(page.locator("#viewer-verdict")).to_contain_text("Your answer")
    undo.click()
    expect(page.locator("#viewer-verdict")).not_to_contain_text("Your answer")
    page.keyboard.press("Delete")
    expect(page.locator("#viewer-place")).to_have_text("1 of 2")
    undo.press("Enter")
    expect(page.get_by_role("dialog", name=EXAMPLES[0].name)).to_be_visible()
    expect(page.locator("#viewer-place")).to_have_text("1 of 3")
    assert page.evaluate("document.activeElement.id") == "viewer"
    page.keyboard.press("Delete")
    page.keyboard.press("Escape")
    undo.click()
    expect(page.locator(".photo")).to_have_count(3)


def test_the_large_view_keeps_the_keyboard_at_its_ends(visit: Visit) -> None:
    page = look_at(visit, 1)
    place = page.locator("#viewer-place")
    for key, at in (("ArrowLeft", 1), ("ArrowLeft", 1), ("ArrowRight", 2), ("ArrowRight", 3), ("ArrowRight", 3)):
        page.keyboard.press(key)
        expect(place).to_have_text(f"{at} of 3")
    said = page.locator("#viewer-live")
    expect(said).to_contain_text(EXAMPLES[2].name)
    assert (said.text_content() or "").count(EXAMPLES[2].name) == 1
    page.get_by_role("button", name="Photo before").click()
    page.get_by_role("button", name="Photo before").click()
    page.keyboard.press("ArrowRight")
    expect(place).to_have_text("2 of 3")
    page.keyboard.press("Delete")
    expect(place).to_have_text("2 of 2")
    expect(page.get_by_role("dialog", name=EXAMPLES[2].name)).to_be_visible()
    page.keyboard.press("Space")
    assert focused(page) == EXAMPLES[2].name


@pytest.mark.parametrize("key", ["Delete", "Backspace"])
def test_the_keyboard_is_not_lost_with_the_last_photo_of_the_large_view(visit: Visit, key: str) -> None:
    page = visit()
    pick(page, *EXAMPLES[:2])
    wait_until_done(page, 2)
    focus(page, EXAMPLES[0].name)
    page.keyboard.press("Space")
    page.keyboard.press(key)
    expect(page.get_by_role("dialog", name=EXAMPLES[1].name)).to_be_visible()
    page.keyboard.press(key)
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator(".photo")).to_have_count(0)
    assert focused(page) == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Choose photos"


def test_each_guess_of_the_large_view_has_its_digit(visit: Visit, predictions: dict[str, Prediction]) -> None:
    page = visit()
    pick(page, *EXAMPLES)
    wait_until_done(page, len(EXAMPLES))
    for sure in (False, True):
        name, prediction = next(item for item in predictions.items() if item[1].sure == sure)
        listed = prediction.labels[1:5] if sure else prediction.labels[:5]
        focus(page, name)
        page.keyboard.press("Space")
        viewer = page.get_by_role("dialog", name=name)
        expect(viewer.locator(".guess .label")).to_have_text(list(listed))
        page.keyboard.press(str(len(listed)))
        expect(viewer.get_by_role("heading", level=3)).to_contain_text(listed[-1])
        page.keyboard.press("Escape")
        # Where three are shown, a further digit means nothing.
        page.keyboard.press("Control+z")
        expect(card(page, name).locator(".guess")).to_have_count(3)
        page.keyboard.press("4")
        expect(card(page, name)).not_to_contain_text("Your answer")


@pytest.mark.parametrize("size", [(1280, 900), (1280, 720), (1001, 600)])
def test_the_keys_can_be_read(visit: Visit, size: tuple[int, int]) -> None:
    page = visit(viewport=dict(zip(("width", "height"), size, strict=True)))
    expect(page.get_by_role("button", name="Keyboard")).to_be_hidden()
    page.keyboard.press("?")
    pick(page, *EXAMPLES)
    wait_until_done(page, len(EXAMPLES))
    dialog = page.get_by_role("dialog", name="Keyboard")
    expect(dialog).to_be_hidden()
    assert page.locator(".bar").evaluate("bar => bar.offsetHeight") < 70
    page.get_by_role("button", name="Keyboard").click()
    for text in ("between photos", "change the category", "take that guess", "take the photo out", "show these keys"):
        expect(dialog.get_by_text(text)).to_be_in_viewport(ratio=1)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()

    page.get_by_label("Search").press("?")
    expect(dialog).to_be_hidden()
    page.get_by_label("Search").fill("")
    focus(page, EXAMPLES[0].name)
    page.keyboard.press("?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    assert focused(page) == EXAMPLES[0].name
    page.keyboard.press("Space")
    page.keyboard.press("?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name=EXAMPLES[0].name)).to_be_visible()


def test_the_pages_own_pictures_cannot_be_dragged_into_it(visit: Visit) -> None:
    page = visit()
    pick(page, EXAMPLES[0])
    wait_until_done(page, 1)
    page.evaluate("window.dragged = 0; addEventListener('dragstart', () => (dragged += 1))")
    for picture in (".photo img", "#viewer-image"):
        expect(page.locator(picture)).to_be_visible()
        box = page.locator(picture).bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] + 60, box["y"] + 80, steps=8)
        page.mouse.up()
        assert page.evaluate("dragged") == 0
        focus(page, EXAMPLES[0].name)
        page.keyboard.press("Space")


def test_the_large_view_goes_through_what_a_filter_shows(visit: Visit, predictions: dict[str, Prediction]) -> None:
    page = visit()
    pick(page, *EXAMPLES)
    wait_until_done(page, len(EXAMPLES))
    unsure = [name for name, one in predictions.items() if not one.sure]
    assert len(unsure) > 3
    page.get_by_role("radio", name=f"Not sure {len(unsure)}").check(force=True)
    focus(page, unsure[1])
    page.keyboard.press("Space")
    place = page.locator("#viewer-place")
    expect(place).to_have_text(f"2 of {len(unsure)}")
    page.keyboard.press("1")
    expect(place).to_have_text("")
    expect(page.get_by_role("dialog", name=unsure[1])).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name=unsure[2])).to_be_visible()
    expect(place).to_have_text(f"2 of {len(unsure) - 1}")
    page.keyboard.press("1")
    expect(place).to_have_text("")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("dialog", name=unsure[0])).to_be_visible()


def test_a_correction_in_the_large_view_does_not_change_what_comes_next(
    visit: Visit, predictions: dict[str, Prediction]
) -> None:
    page = visit()
    pick(page, *EXAMPLES)
    wait_until_done(page, len(EXAMPLES))
    page.get_by_label("Sort by").select_option("Category")
    first, second, *others = sorted(predictions, key=lambda name: predictions[name].label.lower())
    expect(page.locator(".photo .name")).to_have_text([first, second, *others])
    focus(page, first)
    page.keyboard.press("Space")
    page.keyboard.type("undershirt")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer-verdict")).to_contain_text("Your answer")
    expect(page.locator("#viewer-place")).to_have_text(f"1 of {len(EXAMPLES)}")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name=second)).to_be_visible()
    page.keyboard.press("Space")
    assert focused(page) == second
    assert names(page).index(first) > len(EXAMPLES) // 2


def test_a_click_beside_a_dialog_closes_it_and_one_on_its_edge_does_not(visit: Visit) -> None:
    page = visit()
    pick(page, EXAMPLES[0])
    wait_until_done(page, 1)
    page.get_by_role("button", name="Clear all").click()
    dialog = page.get_by_role("dialog", name="Clear all photos?")
    box = dialog.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 5, box["y"] + 5)
    expect(dialog).to_be_visible()
    page.mouse.click(box["x"] - 5, box["y"] - 5)
    expect(dialog).to_be_hidden()


def test_a_correction_that_is_undone_after_the_download_is_not_downloaded(visit: Visit) -> None:
    page = visit()
    pick(page, *EXAMPLES[:2])
    wait_until_done(page, 2)
    for path in EXAMPLES[:2]:
        focus(page, path.name)
        page.keyboard.press("h")
        page.keyboard.press("Enter")
    expect(page.get_by_role("radio", name="Corrected 2")).to_be_visible()
    download(page)
    clear, text = page.get_by_role("button", name="Clear all"), page.locator("#sure-text")
    clear.click()
    expect(text).not_to_contain_text("not downloaded")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    clear.click()
    expect(text).to_contain_text("1 correction of yours will be gone from this page, and you have not downloaded them")


def test_photos_that_were_cleared_are_not_sent_again(visit: Visit) -> None:
    page = visit(expected="ERR_FAILED")
    held = hold_requests(page)
    pick(page, *EXAMPLES[:6])
    expect(page.locator(".photo .category", has_text="Looking")).to_have_count(5)
    wait_for_requests(page, held, 3)
    page.get_by_role("button", name="Clear all").click()
    page.locator("#sure-yes").click()
    for route in list(held):
        route.abort()
    pick(page, EXAMPLES[7])
    expect(card(page, EXAMPLES[7].name)).to_contain_text("Looking")
    wait_for_requests(page, held, 4)
    held[3].continue_()
    wait_until_done(page, 1)
    expect(page.locator("#banner")).to_be_hidden()


def test_a_photo_that_is_taken_out_and_back_on_its_way_is_sent_once(visit: Visit) -> None:
    page = visit()
    held = hold_requests(page)
    pick(page, EXAMPLES[0])
    wait_for_requests(page, held, 1)
    focus(page, EXAMPLES[0].name)
    page.keyboard.press("Delete")
    page.locator("#toast").get_by_role("button", name="Undo").click()
    held[0].continue_()
    wait_until_done(page, 1)
    assert len(held) == 1


def test_a_photo_that_is_added_again_and_then_put_back_is_there_once(visit: Visit) -> None:
    page = visit()
    pick(page, *EXAMPLES[:3])
    wait_until_done(page, 3)
    first = card(page, EXAMPLES[0].name)
    focus(page, EXAMPLES[0].name)
    for key in ("u", "Enter", "Delete"):
        page.keyboard.press(key)
    expect(page.locator(".photo")).to_have_count(2)
    pick(page, EXAMPLES[0])
    wait_until_done(page, 3)
    assert names(page)[2] == EXAMPLES[0].name
    focus(page, EXAMPLES[0].name)
    page.keyboard.press("h")
    page.keyboard.press("Enter")
    page.get_by_role("radio", name="Hat").check(force=True)  # which neither of them will be
    focus(page, EXAMPLES[0].name)
    page.keyboard.press("Space")
    page.keyboard.press("Control+z")
    expect(page.locator("#viewer-verdict")).not_to_contain_text("Your answer")
    page.keyboard.press("Control+z")
    expect(page.locator("#viewer-verdict")).to_contain_text("Undershirt")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Show all photos").click()
    expect(first).to_contain_text("Your answer")
    assert names(page) == [path.name for path in EXAMPLES[:3]]
    expect(page.locator(".photo img[src]:visible")).to_have_count(3)
    assert page.evaluate("held.size") == 3


def test_a_photo_that_is_taken_out_leaves_no_picture_behind(visit: Visit) -> None:
    page = visit()
    pick(page, *EXAMPLES[:2])
    wait_until_done(page, 2)
    expect(page.locator(".photo img[src]")).to_have_count(2)
    focus(page, EXAMPLES[0].name)
    page.keyboard.press("Delete")
    expect(page.locator(".photo")).to_have_count(1)
    assert page.evaluate("held.size") == 1
    page.keyboard.press("Control+z")
    expect(page.locator(".photo img[src]")).to_have_count(2)
    page.wait_for_function("held.size === 2")
    assert card(page, EXAMPLES[0].name).locator("img").evaluate("(image) => image.decode().then(() => true)")


def test_a_photo_that_is_put_back_is_told_apart_from_what_has_come(visit: Visit, tmp_path: Path) -> None:
    for number, folder in enumerate(("front", "back")):
        (tmp_path / folder).mkdir()
        shutil.copy(EXAMPLES[number], tmp_path / folder / "1.jpg")
    page = visit()
    pick(page, tmp_path / "front" / "1.jpg")
    wait_until_done(page, 1)
    focus(page, "1.jpg")
    page.keyboard.press("Delete")
    expect(page.locator(".photo")).to_have_count(0)
    pick(page, tmp_path / "back" / "1.jpg")
    wait_until_done(page, 1)
    page.keyboard.press("Control+z")
    wait_until_done(page, 2)
    assert names(page) == ["1 2.jpg", "1.jpg"]
    assert focused(page) == "1 2.jpg"
    assert [row["name"] for row in download(page)] == names(page)


def is_asked_before_leaving(page: Page) -> bool:
    """Reload, and stay if the browser asks; whether it asked."""
    asked: list[Dialog] = []
    left: list[Page] = []
    page.once("dialog", lambda dialog: asked.append(dialog))
    page.once("load", lambda loaded: left.append(loaded))
    page.mouse.click(1, 1)  # a browser does not ask whoever has not touched the page
    page.evaluate("setTimeout(() => location.reload())")
    deadline = time.monotonic() + PATIENCE / 1000
    while not asked and not left and time.monotonic() < deadline:
        page.wait_for_timeout(10)
    for dialog in asked:
        dialog.dismiss()
    assert asked or left
    return bool(asked)


def test_many_answers_are_not_lost_without_a_question(visit: Visit, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(22)]
    for number, path in enumerate(paths):
        shutil.copy(EXAMPLES[number % len(EXAMPLES)], path)
    page = visit()
    pick(page, *paths[:20])
    wait_until_done(page, 20)
    assert not is_asked_before_leaving(page)
    expect(page.locator(".photo")).to_have_count(0)
    pick(page, *paths[:21])
    wait_until_done(page, 21)
    assert is_asked_before_leaving(page)
    expect(page.locator(".photo")).to_have_count(21)
    download(page)
    pick(page, paths[21])
    wait_until_done(page, 22)
    assert is_asked_before_leaving(page)
    download(page)
    assert not is_asked_before_leaving(page)


def test_no_correction_is_lost_without_a_question(visit: Visit) -> None:
    page = visit()
    pick(page, *EXAMPLES[:2])
    wait_until_done(page, 2)
    focus(page, EXAMPLES[0].name)
    page.keyboard.press("u")
    page.keyboard.press("Enter")
    expect(page.get_by_role("radio", name="Corrected 1")).to_be_visible()
    assert is_asked_before_leaving(page)
    focus(page, EXAMPLES[0].name)
    page.keyboard.press("Delete")
    expect(page.locator(".photo")).to_have_count(1)
    download(page)
    page.locator("#toast").get_by_role("button", name="Undo").click()
    expect(page.locator(".photo")).to_have_count(2)
    assert is_asked_before_leaving(page)
    download(page)
    assert not is_asked_before_leaving(page)


def test_the_table_tells_what_the_page_shows(visit: Visit, predictions: dict[str, Prediction], tmp_path: Path) -> None:
    hostile = tmp_path / "=1+1,\"'.jpg"
    shutil.copy(EXAMPLES[0], hostile)
    page = visit()
    pick(page, *EXAMPLES[:3], hostile)
    wait_until_done(page, 4)
    label = next(label for label in Classifier.load().labels if label != predictions[EXAMPLES[1].name].label)
    focus(page, EXAMPLES[1].name)
    page.keyboard.press("Enter")
    page.keyboard.type(label)
    page.keyboard.press("Enter")
    rows = download(page)
    assert [row["name"] for row in rows] == [*(path.name for path in EXAMPLES[:3]), "'" + hostile.name]
    for row, path in zip(rows, EXAMPLES, strict=False):
        prediction = predictions[EXAMPLES[0].name if row["name"].startswith("'") else path.name]
        assert row["label"] == prediction.label
        assert float(row["probability"]) == prediction.probability
        assert row["sure"] == str(prediction.sure).lower()
        runners_up = [(row[f"label_{i}"], float(row[f"probability_{i}"])) for i in range(2, 6)]
        assert runners_up == prediction.top(5)[1:]
        corrected = path == EXAMPLES[1]
        assert row["corrected"] == str(corrected).lower()
        assert row["answer"] == (label if corrected else prediction.answer)
        assert row["error"] == ""


def test_no_name_breaks_the_table(visit: Visit) -> None:
    page = visit()
    starts = st.sampled_from(["", "a;=", "=", "+", "-", "@", "\t", "\r", "\n", "＝", " =", '"', "'"])
    text = st.tuples(starts, st.text(st.characters(exclude_categories=["Cs"]))).map("".join)

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(text, min_size=1, max_size=8))
    def check(texts: list[str]) -> None:
        table = page.evaluate(
            """async (texts) => {
              const { toCsv } = await import("/page/csv.js");
              return toCsv(texts.map((text) => ({ name: text, answer: null, result: null, error: { reason: text } })));
            }""",
            texts,
        )
        header, *rows = csv.reader(io.StringIO(table.removeprefix("\ufeff"), newline=""), strict=True)
        assert len(rows) == len(texts)
        for row, text in zip(rows, texts, strict=True):
            assert len(row) == len(header)
            for cell in (row[0], row[header.index("error")]):
                assert cell in (text, "'" + text)
                assert cell == "" or cell[0] not in "=+-@\t\r\n＝＋－＠"
                assert not cell.lstrip(" ").startswith("=")
            assert ";" not in row[0] or f'"{row[0].replace(chr(34), chr(34) * 2)}"' in table

    check()


def test_the_service_stops_and_comes_back(visit: Visit, threshold: float, predictions: dict[str, Prediction]) -> None:
    with serving(threshold) as address:
        page = visit(address, expected="Failed to load resource: net::ERR_")
        pick(page, EXAMPLES[0])
        wait_until_done(page, 1)
    port = int(address.rstrip("/").rpartition(":")[2])
    pick(page, *EXAMPLES[1:6])
    expect(page.locator("#banner")).to_contain_text("The service does not answer.")
    with serving(threshold, port=port):
        wait_until_done(page, 6)
        expect(page.locator("#banner")).to_be_hidden()
        expect(page.locator("#tally")).not_to_contain_text("failed")
    # And for longer than the page has patience for.
    pick(page, *EXAMPLES[6:9])
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#banner")).to_contain_text("Your photos are kept")
    expect(page.locator("#tally")).to_contain_text("3 failed")
    expect(card(page, EXAMPLES[7].name)).to_contain_text("It was not classified: the service does not answer.")
    with serving(threshold, port=port):
        card(page, EXAMPLES[7].name).get_by_role("button", name="Try again").click()
        expect(card(page, EXAMPLES[7].name)).to_contain_text(predictions[EXAMPLES[7].name].label)
        focus(page, EXAMPLES[6].name)
        card(page, EXAMPLES[6].name).get_by_role("button", name="Try again").press("Enter")
        card(page, EXAMPLES[8].name).get_by_role("button", name="Try again").click()
        wait_until_done(page, 9)
        expect(page.locator("#tally")).not_to_contain_text("failed")


def test_the_service_comes_back_with_another_model(visit: Visit, threshold: float, tiny_model: Path) -> None:
    with serving(threshold) as address:
        page = visit(address)
        pick(page, EXAMPLES[0])
        wait_until_done(page, 1)
    with serving(0.3, "--model", str(tiny_model), port=int(address.rstrip("/").rpartition(":")[2])):
        pick(page, EXAMPLES[1])
        wait_until_done(page, 2)
        page.get_by_role("button", name="About the model").click()
        panel = page.get_by_role("dialog", name="How far to trust the model")
        expect(panel).to_contain_text("where it is at least 30\u202f% confident")
        page.keyboard.press("Escape")
        focus(page, EXAMPLES[1].name)
        page.keyboard.press("Enter")
        expect(page.get_by_role("option")).to_contain_text(["red", "green", "blue"])


def test_a_busy_service_is_asked_again(visit: Visit, threshold: float) -> None:
    with serving(threshold, "--max-requests", "1") as address:
        page = visit(address, expected="503")
        statuses: list[int] = []
        page.on("response", lambda response: statuses.append(response.status))
        pick(page, *EXAMPLES[:8])
        wait_until_done(page, 8)
        assert 503 in statuses
        expect(page.locator("#tally")).not_to_contain_text("failed")
        expect(page.locator("#banner")).to_be_hidden()


def test_photos_that_are_long_on_their_way_are_waited_for(visit: Visit, tmp_path: Path) -> None:
    large = tmp_path / "large.bmp"
    Image.new("RGB", (1500, 1000)).save(large)
    page = visit()
    page.evaluate("AbortSignal.timeout = (ms) => { window.patience = ms; }")
    pick(page, large)
    wait_until_done(page, 1)
    slowest = large.stat().st_size / 2**14  # seconds, with which the service has patience
    assert page.evaluate("patience") > 1000 * (60 + slowest)


def test_no_more_photos_go_at_once_than_the_line_is_fast(visit: Visit, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.bmp" for number in range(8)]
    for number, path in enumerate(paths):
        Image.new("RGB", (1000, 1000), (number, 0, 0)).save(path)  # 3 MB
    page = visit()
    page.evaluate("window.clock = 0; performance.now = () => clock")
    held = hold_requests(page)
    pick(page, *paths)
    looking = page.locator(".photo .category", has_text="Looking")
    for answered, (slow, afterwards) in enumerate(((True, 1), (False, 5)), start=1):
        expect(looking).to_have_count(1)
        wait_for_requests(page, held, 1)
        page.evaluate(f"clock += {60_000 if slow else 100}")
        held.pop().continue_()
        expect(page.locator("#tally")).to_have_text(f"{answered} of {len(paths)} classified")
        expect(looking).to_have_count(afterwards)
    wait_for_requests(page, held, 3)
    for route in held:
        route.continue_()
    page.unroute("**/v1/predictions*")
    wait_until_done(page, len(paths))


@pytest.mark.parametrize("status", [429, 502, 504])
def test_a_proxy_whose_service_comes_back_is_asked_again(visit: Visit, status: int) -> None:
    """As while the service is started again behind it: no photo fails, and none is sent without end."""
    page = visit(expected=f"status of {status}")
    left = [6]

    def refuse(route: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            route.continue_()
        else:
            route.fulfill(status=status, body="<html>of a proxy</html>", headers={"Retry-After": "1"})

    page.route("**/v1/predictions*", refuse)
    pick(page, *EXAMPLES[:8])
    expect(page.locator("#banner")).to_contain_text("The service is busy.")
    wait_until_done(page, 8)
    expect(page.locator("#tally")).not_to_contain_text("failed")
    expect(page.locator("#banner")).to_be_hidden()


def test_all_that_failed_can_be_tried_again_at_once(visit: Visit) -> None:
    page = visit(expected="status of 500")
    page.route("**/v1/predictions*", lambda route: route.fulfill(status=500, body="{}"))
    pick(page, *EXAMPLES[:3])
    expect(page.locator("#tally")).to_contain_text("3 failed")
    page.unroute("**/v1/predictions*")
    card(page, EXAMPLES[0].name).get_by_role("button", name="Try again").click()
    expect(page.locator("#tally")).to_contain_text("2 failed")
    page.get_by_role("button", name="Try 2 again").press("Enter")
    wait_until_done(page, 3)
    expect(page.locator("#tally")).not_to_contain_text("failed")
    expect(page.locator("#again")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_page_works_behind_a_proxy_with_a_login(visit: Visit) -> None:
    page = visit()
    page.context.add_cookies([{"name": "session", "value": "mine", "url": page.url}])
    with page.expect_request("**/v1/predictions*") as sent:
        pick(page, EXAMPLES[0])
    assert sent.value.all_headers()["cookie"] == "session=mine"
    wait_until_done(page, 1)


def test_a_file_that_is_gone_says_so(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "gone.jpg"
    shutil.copy(EXAMPLES[0], path)
    page = visit(expected="ERR_FILE_NOT_FOUND|ERR_UPLOAD_FILE_CHANGED|ERR_FAILED")
    held = hold_requests(page)
    pick(page, path)
    expect(card(page, "gone.jpg").locator("img")).to_be_visible()
    wait_for_requests(page, held, 1)
    path.unlink()
    held[0].abort()
    expect(card(page, "gone.jpg")).to_contain_text("cannot be read any more: it was moved, renamed or changed")
    expect(page.locator("#banner")).to_be_hidden()


def test_the_key_is_asked_for_and_not_kept(visit: Visit, threshold: float) -> None:
    with serving(threshold, key="open sesame") as address:
        page = visit(address, expected="401")
        dialog = page.get_by_role("dialog", name="This service needs a key")
        expect(dialog).to_be_visible()
        expect(dialog.get_by_label("Key", exact=True)).to_be_focused()
        page.keyboard.type("open barley")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_contain_text("That key was not accepted")
        dialog.get_by_role("button", name="Not now").click()
        pick(page, EXAMPLES[0])
        expect(card(page, EXAMPLES[0].name)).to_contain_text("Waiting")
        page.get_by_role("button", name="Enter the key").click()
        page.keyboard.type("open sesame")
        page.keyboard.press("Enter")
        wait_until_done(page, 1)
        expect(page.locator("#tally")).to_contain_text("sure")
        assert page.evaluate("document.activeElement.id") == "main"
        assert page.context.cookies() == []
        assert page.evaluate("localStorage.length + sessionStorage.length") == 0
        page.reload()
        expect(dialog).to_be_visible()


def test_two_hundred_photos(visit: Visit, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i:03}.jpg" for i in range(200)]
    for i, path in enumerate(paths):
        shutil.copy(EXAMPLES[i % len(EXAMPLES)], path)
    page = visit()
    pick(page, *paths)
    expect(page.locator(".photo")).to_have_count(200)
    wait_until_done(page, 200)
    expect(page.locator(".photo[data-status=sure], .photo[data-status=unsure]")).to_have_count(200)
    page.wait_for_timeout(400)
    said = page.evaluate("said")
    assert said[0] == "200 photos added."
    assert said[-1].startswith("Done: ")
    assert len(said) < 15
    expect(page.locator(".photo img[src]")).to_have_count(200)
    assert page.evaluate("held.size") == 200

    page.get_by_role("switch", name="Show evidence").check(force=True)
    first, last = page.locator(".photo").first, page.locator(".photo").last
    expect(first.locator("canvas")).to_have_attribute("data-drawn", "")
    drawn = page.locator(".photo canvas[data-drawn]")
    assert drawn.count() < 100  # those on the screen, and near it
    last.scroll_into_view_if_needed()
    expect(last.locator("canvas")).to_have_attribute("data-drawn", "")

    first.locator("article").focus()
    page.evaluate(
        """() => {
          for (let press = 0; press < 5; press += 1) {
            document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "Delete", bubbles: true }));
          }
        }"""
    )
    expect(page.locator(".photo")).to_have_count(195)
    assert focused(page) == paths[5].name
    for _ in range(5):
        page.keyboard.press("Control+z")
    expect(page.locator(".photo")).to_have_count(200)

    page.get_by_role("button", name="Clear all").click()
    dialog = page.get_by_role("dialog", name="Clear all photos?")
    expect(dialog).to_contain_text("200 photos will be gone")
    page.keyboard.press("Escape")
    expect(page.locator(".photo")).to_have_count(200)
    page.get_by_role("button", name="Clear all").click()
    dialog.get_by_role("button", name="Clear all").click()
    expect(page.locator(".photo")).to_have_count(0)
    expect(page.get_by_role("heading", name="Drop photos of clothing here")).to_be_visible()
    assert page.evaluate("held.size") == 0


def test_previews_are_upright(visit: Visit, tmp_path: Path) -> None:
    picture = Image.new("RGB", (90, 60), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 30, 60))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise: red comes to the top
    turned = tmp_path / "turned.jpg"
    picture.save(turned, exif=exif, quality=95)
    page = visit()
    pick(page, turned)
    wait_until_done(page, 1)
    width, height, red, _, blue = page.locator(".photo img").evaluate(
        """async (image) => {
          await image.decode();
          const canvas = document.createElement("canvas");
          canvas.width = image.naturalWidth;
          canvas.height = image.naturalHeight;
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          const { data } = context.getImageData(canvas.width / 2, canvas.height / 10, 1, 1);
          return [canvas.width, canvas.height, ...data];
        }"""
    )[:5]
    assert width < height
    assert red > 200 > 60 > blue


def test_the_model_says_how_far_to_trust_it(visit: Visit) -> None:
    card_of_model = Classifier.load().card
    page = visit()
    page.get_by_role("button", name="About the model").click()
    panel = page.get_by_role("dialog", name="How far to trust the model")
    expect(panel).to_contain_text(card_of_model.name)
    figures = card_of_model.metrics["sender folds"]
    for share in (figures["accuracy"], figures["sure"]["share"], figures["sure"]["accuracy"]):
        expect(panel).to_contain_text(percent(share))
    expect(panel).to_contain_text(
        "Measured on 4,490 photos, each by a copy of this model that had learned from neither it nor any other photo "
        "of the same person. The model itself has learned from all of them."
    )
    for label in card_of_model.labels:
        expect(panel.get_by_role("rowheader", name=label, exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()


def test_a_model_that_is_not_known_yet_is_said_to_be(visit: Visit) -> None:
    page = visit(expected="Failed to load resource")
    page.route("**/v1/model", lambda route: route.abort())
    page.reload()
    pick(page, EXAMPLES[0])
    card(page, EXAMPLES[0].name).get_by_role("button", name="Change the category of").click()
    expect(page.locator("#toast-text")).to_have_text(re.compile("no categories to choose from"))
    expect(page.locator("#live")).to_have_text(re.compile("no categories to choose from"))
    page.get_by_role("button", name="About the model").click()
    panel = page.get_by_role("dialog", name="How far to trust the model")
    expect(panel).to_contain_text("The service has not told of its model yet")
    page.unroute("**/v1/model")
    expect(panel).to_contain_text(Classifier.load().card.name)
    expect(panel).not_to_contain_text("has not told")


def test_of_many_categories_some_are_named(visit: Visit) -> None:
    def describe(route: Any) -> None:
        model = route.fetch().json()
        model["card"]["labels"] = [f"class {number}" for number in range(300)]
        route.fulfill(json=model)

    page = visit()
    page.route("**/v1/model", describe)
    page.reload()
    expect(page.locator("#fact-labels")).to_have_text(re.compile(r"One of 300: class 0, .*, class 29 and others\."))


def test_what_judged_a_model_is_told_as_its_card_has_it(visit: Visit, tiny_model: Path) -> None:
    with serving(0.5, "--model", str(tiny_model)) as address:
        page = visit(address)
        page.get_by_role("button", name="About the model").click()
        expect(page.get_by_role("dialog", name="How far to trust the model")).to_contain_text(
            "Measured on 64 photos that it was not taught. Your photos may be harder or easier"
        )
    told = page.evaluate(
        """async () => {
          const { describe } = await import("/page/model.js");
          const figures = { photos: 90, accuracy: 0.9 };
          const tell = (part, protocol) => {
            const body = document.createElement("div");
            describe(body, { card: { threshold: 0.5, metrics: { [part]: { ...figures, protocol } } } });
            return body.textContent;
          };
          return [
            tell("random folds", "5 folds, stratified by class at random"),
            tell("test", "one split, stratified by class, no sender on two sides; test part, seed 0"),
          ];
        }"""
    )
    folds, split = told
    assert (
        "Measured on 90 photos, each by a copy of this model that had not learned from it. "
        "The model itself has learned from all of them. Your" in folds
    )
    assert "Measured on 90 photos that it was not taught, from people of whom it had seen none. Your" in split


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_nothing_sticks_out(visit: Visit, tmp_path: Path, width: int) -> None:
    long = tmp_path / ("very-long-name-" * 12 + ".jpg")
    shutil.copy(EXAMPLES[0], long)
    page = visit(viewport={"width": width, "height": 800}, reduced_motion="reduce", forced_colors="active")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    pick(page, long, *EXAMPLES[:2])
    wait_until_done(page, 3)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.getAnimations().length") == 0


def test_names_of_classes_are_read_whole_however_long_they_are(
    visit: Visit,
    tmp_path: Path,
    tiny_graph: onnx.ModelProto,
    tiny_card: ModelCard,
    pack_model: Callable[[onnx.ModelProto, str], bytes],
) -> None:
    labels = ("Traditional coat for children", "Traditional coat for adults", "Donaudampfschiffskapitänsjacke")
    figures = {label: {"precision": 1, "recall": 1, "photos": 3} for label in labels}
    own = replace(tiny_card, labels=labels, metrics={"folds": {"photos": 9, "per_class": figures}}, data={"photos": 9})
    (tmp_path / "own.onnx").write_bytes(pack_model(tiny_graph, own.to_json()))
    cut = """all => all
      .filter(one => one.scrollWidth > one.clientWidth || one.getBoundingClientRect().right > innerWidth)
      .map(one => one.textContent)"""
    with serving(0.3, "--model", str(tmp_path / "own.onnx")) as address:
        for width in (320, 1280):
            page = visit(address, viewport={"width": width, "height": 900})
            assert page.locator(".facts p").evaluate_all(cut) == []
            pick(page, EXAMPLES[0])
            wait_until_done(page, 1)
            assert page.locator(".photo .verdict *").evaluate_all(cut) == []
            focus(page, EXAMPLES[0].name)
            page.keyboard.press("Space")
            assert page.locator("#viewer-verdict *, #viewer-evidence-label").evaluate_all(cut) == []
            page.keyboard.press("Enter")
            assert page.locator(".option").evaluate_all(cut) == []
            for key in ("Escape", "Escape"):
                page.keyboard.press(key)
            page.get_by_role("button", name="About the model").click()
            assert page.locator("#model-body, #model-body th").evaluate_all(cut) == []


@pytest.mark.parametrize("script", [False, True])
def test_the_documentation_is_found(browser: Browser, service: str, script: bool) -> None:
    page = browser.new_page(java_script_enabled=script)
    page.goto(service)
    page.get_by_role("link", name="API documentation" if script else "over HTTP").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Clothing classifier: API")
    page.close()


def test_behind_a_proxy_page_and_documentation_have_the_address_of_the_browser(
    visit: Visit, browser: Browser, service: str, loopback: Callable[[Callable[[BaseHTTPRequestHandler], None]], str]
) -> None:
    to = service.removeprefix("http://").rstrip("/")

    def pass_on(request: BaseHTTPRequestHandler) -> None:
        connection = HTTPConnection(to, timeout=60)
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        outside, _, path = request.path.partition("/clothing/")
        connection.request(request.command, f"/{path}" if outside == "" else "/nothing", body, dict(request.headers))
        with connection.getresponse() as response:
            request.send_response_only(response.status)
            for name, value in response.getheaders():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(response.read())
        connection.close()

    address = loopback(pass_on) + "/clothing/"
    page = visit(address)
    pick(page, *EXAMPLES[:2])
    wait_until_done(page, 2)
    expect(page.locator("#tally")).not_to_contain_text("failed")
    page = browser.new_page()
    page.goto(address)
    page.get_by_role("link", name="API documentation").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Clothing classifier: API")
    example = page.locator("pre").first.text_content() or ""
    addresses = re.findall(r"'(http.*?)'", example)
    assert [one.startswith(f"{address}v1/predictions?") for one in addresses] == [True, True]
    for address in addresses:
        answer = page.request.post(address, data=EXAMPLES[0].read_bytes())
        assert (answer.status, answer.json()["results"][0]["name"]) == (200, "photo")
    page.get_by_role("link", name="Predictions").first.click()
    expect(page.get_by_role("heading", name="Predictions", exact=True)).to_be_in_viewport()
    page.get_by_role("link", name="openapi.json").click()
    assert "/v1/predictions" in page.locator("body").inner_text()

    # Of https, only the browser knows, where the proxy ends it.
    secure = "https://shop.example/clothing/"
    page.route(secure + "**", lambda route: route.fulfill(response=route.fetch(url=service + route.request.url[30:])))
    page.goto(secure + "docs")
    expect(page.locator("pre").first).to_contain_text(f"curl --data-binary @photo.jpg '{secure}v1/predictions?top=3'")
    assert "http://" not in page.locator("body").inner_text()
    page.close()


def test_no_example_of_the_documentation_sticks_out(browser: Browser, service: str) -> None:
    """Or it would have to be scrolled sideways, which not every browser does by keyboard."""
    page = browser.new_page(viewport={"width": 320, "height": 800})
    page.goto(service + "docs")
    assert page.locator("pre").count() > 2
    wide = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"
    assert page.locator("pre").evaluate_all(wide) == []
    page.close()
