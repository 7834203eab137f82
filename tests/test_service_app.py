from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from PIL import Image

from clothing_classifier.classifier import Classifier
from clothing_classifier.service.problems import KINDS

Answer: TypeAlias = tuple[int, dict[str, str], Any]
PAGE = Path(__file__).parents[1] / "src" / "clothing_classifier" / "service" / "page"


class Server:
    """A service that runs in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int, announced: str) -> None:
        self.process = process
        self.port = port
        self.announced = announced

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Return status, headers (in lower case) and body, JSON already read."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            content = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, json.loads(content) if "json" in found.get("content-type", "") else content
        finally:
            connection.close()


@contextmanager
def serving(model: Path, *options: str, **environment: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "clothing_classifier", "serve", "--model", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r":(\d+)/", line)
        assert found, line + process.stderr.read()
        yield Server(process, int(found[1]), line)
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[Server]:
    with serving(tiny_model) as running:
        yield running


def photo(colour: str = "red", size: tuple[int, int] = (8, 12), kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--cut\r\nContent-Disposition: form-data; name="photos"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join([*parts, b"--cut--\r\n"]), {"Content_Type": "multipart/form-data; boundary=cut"}


def test_one_photo_gives_what_the_classifier_gives(server: Server, tiny_model: Path) -> None:
    classifier = Classifier.load(tiny_model)
    for colour in ("red", "blue", "grey"):
        status, _, body = server.ask("POST", "/v1/predictions", photo(colour))
        prediction = classifier.predict(photo(colour))
        assert status == 200
        assert body["results"] == [
            {
                "name": "photo",
                "answer": prediction.answer,
                "sure": prediction.sure,
                "label": prediction.label,
                "probability": prediction.probability,
                "labels": [{"label": label, "probability": share} for label, share in prediction.top(5)],
            }
        ]
    assert body["results"][0]["answer"] == "not sure"
    assert body["model"] == {
        "name": "tiny",
        "version": "0.1.0",
        "digest": hashlib.sha256(tiny_model.read_bytes()).hexdigest(),
        "threshold": 0.6,
    }


def test_several_photos_each_have_their_result(server: Server) -> None:
    body, headers = form(("a.png", photo("red")), ("b.txt", b"{}"), ("c.jpg", photo("blue", kind="JPEG")), ("d", b""))
    status, _, answer = server.ask("POST", "/v1/predictions?top=1", body, **headers)
    assert status == 200
    first, second, third, fourth = answer["results"]
    assert (first["name"], first["answer"], len(first["labels"])) == ("a.png", "red", 1)
    assert second == {
        "name": "b.txt",
        "error": {"kind": "not-a-picture", "reason": "is a JSON document, not a picture"},
    }
    assert third["label"] == "blue"
    assert fourth == {"name": "d", "error": {"kind": "unreadable", "reason": "is empty"}}


def test_forms_of_broken_files_are_answered_too(server: Server) -> None:
    body, headers = form(("a", b"x"), ("b", photo()[:-20]))
    status, _, answer = server.ask("POST", "/v1/predictions", body, **headers)
    assert status == 200
    assert [result["error"]["kind"] for result in answer["results"]] == ["not-a-picture", "unreadable"]


def test_the_evidence_lies_over_the_photo(server: Server) -> None:
    picture = Image.new("RGB", (400, 200), "blue")
    picture.paste("red", (0, 0, 250, 200))
    file = BytesIO()
    picture.save(file, "PNG")
    _, _, answer = server.ask("POST", "/v1/predictions?evidence=true", file.getvalue())
    evidence = answer["results"][0]["evidence"]
    drawn = Image.open(BytesIO(base64.b64decode(evidence["png"])))
    assert evidence["label"] == answer["results"][0]["label"]
    assert (drawn.size, drawn.mode) == ((64, 32), "L")
    left, right = drawn.getpixel((5, 16)), drawn.getpixel((58, 16))
    assert (left, right) == ((255, 0) if evidence["label"] == "red" else (0, 255))


def test_the_preview_is_the_photo_upright(server: Server) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise for display
    picture = Image.new("RGB", (90, 45), "blue")
    picture.paste("red", (0, 0, 45, 45))
    file = BytesIO()
    picture.save(file, "JPEG", exif=exif, quality=95)
    _, _, answer = server.ask("POST", "/v1/predictions?preview=true", file.getvalue())
    preview = answer["results"][0]["preview"]
    shown = Image.open(BytesIO(base64.b64decode(preview["jpeg"])))
    assert (shown.format, shown.size) == ("JPEG", (preview["width"], preview["height"]))
    assert abs(shown.width * 2 - shown.height) <= 1
    above, below = (shown.getpixel((shown.width // 2, y)) for y in (0, shown.height - 1))
    assert isinstance(above, tuple)
    assert isinstance(below, tuple)
    assert (above[0] > 200, below[2] > 200) == (True, True)
    _, _, answer = server.ask("POST", "/v1/predictions", file.getvalue())
    assert "preview" not in answer["results"][0]


def test_a_photo_alone_that_fails_is_a_problem(server: Server) -> None:
    for body, status, kind in (
        (b"%PDF-1.7", 415, "not-a-picture"),
        (photo()[:-20], 422, "unreadable"),
        (photo(size=(8000, 8000)), 422, "too-many-pixels"),
        (b"", 422, "no-photo"),
    ):
        found, headers, answer = server.ask("POST", "/v1/predictions", body)
        assert (found, headers["content-type"]) == (status, "application/problem+json")
        assert answer["type"] == f"/docs#{kind}"
        assert answer.keys() == {"type", "title", "status", "detail"}
        assert answer["status"] == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/predictions?top=0", 422),
        ("POST", "/v1/predictions?top=x", 422),
        ("POST", "/v1/predictions?evidence=perhaps", 422),
        ("GET", "/v1/predictions", 405),
        ("DELETE", "/", 405),
        ("GET", "/nothing", 404),
        ("GET", "/page/", 404),
        ("GET", "/page/..%2fapp.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
        ("GET", "/v1/model/", 404),
    ],
)
def test_errors_of_the_request_are_problems(server: Server, method: str, path: str, status: int) -> None:
    found, headers, answer = server.ask(method, path, photo() if method == "POST" else b"")
    assert (found, headers["content-type"], answer["status"]) == (status, "application/problem+json", status)
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


def test_nothing_of_the_inside_leaks(server: Server) -> None:
    for path in ("/v1/predictions?top=x", "/nothing", "/v1/model", "/openapi.json", "/metrics", "/docs"):
        text = str(server.ask("POST" if "?" in path else "GET", path, photo() if "?" in path else b""))
        for inner in ("Traceback", "site-packages", "/src/", "uvicorn", "astapi", "tarlette", "ython"):
            assert inner not in text.replace("HTTPValidationError", ""), (path, inner)


def test_the_model_is_described(server: Server, tiny_model: Path) -> None:
    status, _, answer = server.ask("GET", "/v1/model")
    assert status == 200
    assert answer["labels"] == ["red", "green", "blue"]
    assert answer["card"]["metrics"]["test"]["photos"] == 64
    assert answer["limits"].keys() == {"bytes", "pixels", "files", "request_bytes"}


def test_the_figures_count(server: Server) -> None:
    def figure(line: str) -> float:
        text = server.ask("GET", "/metrics")[2].decode()
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    sure, faults = 'clothing_photos_total{sure="true"}', 'clothing_errors_total{kind="unreadable",of="photo"}'
    before = figure(sure), figure(faults), figure("clothing_batch_photos_sum")
    body, headers = form(("a", photo("red")), ("b", photo("blue")), ("c", photo()[:-20]))
    server.ask("POST", "/v1/predictions", body, **headers)
    assert (figure(sure), figure(faults), figure("clothing_batch_photos_sum")) == (
        before[0] + 2,
        before[1] + 1,
        before[2] + 2,
    )
    assert figure("clothing_requests_under_way") == figure("clothing_held_bytes") == 0
    server.ask("GET", "/any/path/at/all")
    assert "any/path" not in server.ask("GET", "/metrics")[2].decode()


def test_the_page_is_served_as_it_lies_there(server: Server) -> None:
    for file in PAGE.iterdir():
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        status, headers, content = server.ask("GET", path)
        assert (status, content) == (200, file.read_bytes())
        assert headers["cache-control"] == "no-cache"
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["content-type"].split("/")[0] in ("text", "image", "application")
        status, headers, content = server.ask("GET", path, If_None_Match=headers["etag"])
        assert (status, content) == (304, b"")
        status, headers, content = server.ask("HEAD", path)
        assert (status, content, int(headers["content-length"])) == (200, b"", file.stat().st_size)


def test_the_documentation_needs_nothing_from_elsewhere(server: Server) -> None:
    status, headers, content = server.ask("GET", "/docs")
    page = content.decode()
    assert status == 200
    for part in ("style", "script"):
        (text,) = re.findall(rf"<{part}>(.*?)</{part}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}';" in headers["content-security-policy"]
    assert set(re.findall(r'(?:src|href)="([^"#]*)', page)) <= {"", "./", "openapi.json"}
    for kind in KINDS:
        assert f'id="{kind}"' in page
    assert "/v1/predictions" in page
    assert "not from <code>filename*</code>" in page


def test_the_documentation_is_of_this_service_and_its_model(server: Server) -> None:
    page = html.unescape(server.ask("GET", "/docs")[2].decode())
    assert set(re.findall(r"http://[^/]*", page)) == {f"http://127.0.0.1:{server.port}"}
    elsewhere = re.sub("</?span.*?>", "", html.unescape(server.ask("GET", "/docs", Host="localhost:81")[2].decode()))
    assert "curl --data-binary @photo.jpg 'http://localhost:81/v1/predictions?top=3'" in elsewhere

    model = server.ask("POST", "/v1/predictions", photo())[2]["model"]
    for content in server.ask("GET", "/openapi.json")[2]["paths"]["/v1/predictions"]["post"]["responses"]["200"][
        "content"
    ].values():
        for example in content["examples"].values():
            assert example["value"]["model"] == model
            for result in example["value"]["results"]:
                if "error" not in result:
                    assert result["sure"] == (result["probability"] >= model["threshold"])
                    assert result["label"] in ("red", "green", "blue")
    assert json.dumps(model, indent=2).replace("\n", "\n  ") in page


def test_the_description_has_every_address_and_status(server: Server) -> None:
    _, _, document = server.ask("GET", "/openapi.json")
    assert document["paths"].keys() == {"/v1/predictions", "/v1/model", "/healthz", "/readyz", "/metrics"}
    operation = document["paths"]["/v1/predictions"]["post"]
    statuses = {"200", "400", "403", "408", "413", "415", "421", "422", "500", "503"}
    assert operation["responses"].keys() == statuses
    assert "multipart/form-data" in operation["requestBody"]["content"]
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert names == ["predict", "model", "health", "readiness", "figures"], "so generated clients call their functions"
    text = json.dumps(document)
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in document["components"]["schemas"]
    assert document["components"]["schemas"].keys() == set(re.findall(r"#/components/schemas/(\w+)", text))


def test_requests_at_once_all_have_their_own_answer(server: Server) -> None:
    colours = ["red", "green", "blue"] * 10
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = server.ask("POST", "/v1/predictions", photo(colours[number]))[2]["results"][0]["label"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(colours))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Pillow's "green" is half as bright as the model's, and still the greenest.
    assert [answers[number] for number in range(len(colours))] == colours


def test_limits_are_kept_and_told(tiny_model: Path) -> None:
    options = ("--max-bytes", "2000", "--max-files", "2", "--max-megapixels", "0.0001", "--max-requests", "3")
    with serving(tiny_model, *options) as server:
        assert server.ask("GET", "/v1/model")[2]["limits"] == {
            "bytes": 2000,
            "pixels": 100,
            "files": 2,
            "request_bytes": 128 * 2**20,
        }
        assert server.ask("POST", "/v1/predictions", photo() + b"x" * 2000)[2]["type"] == "/docs#too-large"
        status, _, answer = server.ask("POST", "/v1/predictions", photo(size=(11, 10)))
        assert (status, answer["detail"]) == (422, "is 11 × 10 = 110 pixels, over the limit of 100; make it smaller")
        body, headers = form(("a", photo()), ("b", b"x" * 2001))
        results = server.ask("POST", "/v1/predictions", body, **headers)[2]["results"]
        assert results[0]["label"] == "red"
        assert results[1]["error"]["kind"] == "too-large"
        body, headers = form(*[("a", photo())] * 3)
        assert server.ask("POST", "/v1/predictions", body, **headers)[2]["type"] == "/docs#too-many-files"


def test_other_addresses_are_listened_on_when_told_so(tiny_model: Path) -> None:
    with serving(tiny_model, "--host", "0.0.0.0") as server:
        assert server.process.stderr is not None
        assert server.announced.startswith(
            f"Serving tiny on http://localhost:{server.port}/ and on this machine's other"
        )
        assert "CLOTHING_API_KEY" in server.process.stderr.readline()
        assert server.ask("GET", "/healthz", Host="any.example")[0] == 200
    with serving(tiny_model, "--allow-host", "shop.example") as server:
        assert server.ask("GET", "/healthz", Host="shop.example")[0] == 200
        assert server.ask("GET", "/healthz", Host="any.example")[0] == 421
        for path in ("/healthz", "/readyz", "/metrics"):  # as who watches over it asks, by the address
            assert server.ask("GET", path, Host=f"10.0.0.5:{server.port}")[0] == 200


def test_the_key_guards_the_api_and_not_the_page_or_the_documentation(tiny_model: Path) -> None:
    with serving(tiny_model, CLOTHING_API_KEY="open sesame") as server:
        for path in ("/v1/model", "/metrics"):
            assert server.ask("GET", path)[0] == 401
            assert server.ask("GET", path, X_API_Key="open sesame")[0] == 200
        assert server.ask("POST", "/v1/predictions", photo())[0] == 401
        assert server.ask("POST", "/v1/predictions", photo(), Authorization="Bearer open sesame")[0] == 200
        assert server.ask("GET", "/healthz")[0] == server.ask("GET", "/readyz")[0] == 200
        assert server.ask("GET", "/openapi.json")[2]["paths"]["/v1/model"]["get"]["security"]
        assert b"X-API-Key: KEY" in server.ask("GET", "/docs")[2]


def test_schemathesis_finds_nothing(server: Server) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json"]
    command += ["--checks", "all", "--mode", "all", "--max-examples", "40", "--seed", "1", "--no-color"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, errors="replace")
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
