from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clothing_classifier.service.admission import Admission
from clothing_classifier.service.guard import Guard, allowed_hosts
from clothing_classifier.service.metrics import Metrics
from clothing_classifier.service.settings import Settings

LOOPBACK = allowed_hosts("127.0.0.1", set())


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["method"].encode()})


def ask(
    path: str, settings: Settings, app: ASGIApp = hello, /, *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and body of what the guard or the app behind it answers."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    guard = Guard(app, settings, {"/v1/model"}, Metrics(), Admission(settings))
    asyncio.run(guard(scope, receive, send))
    start, *bodies = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    body = b"".join(message.get("body", b"") for message in bodies)
    return start["status"], found, json.loads(body) if body.startswith(b"{") else body


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST", "localhost."])
def test_the_service_answers_to_its_names(host: str) -> None:
    assert ask("/", Settings(hosts=LOOPBACK), host=host)[0] == 200


@pytest.mark.parametrize("host", ["10.0.0.5:8000", "192.0.2.1", "[2001:db8::1]:8000", "[::ffff:10.0.0.5]"])
@pytest.mark.parametrize("hosts", [LOOPBACK, allowed_hosts("0.0.0.0", {"shop.example"})])
def test_and_to_any_address_as_no_name_can_be_rebound_to_one(host: str, hosts: frozenset[str]) -> None:
    assert ask("/readyz", Settings(hosts=hosts), host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "", "["),
        *("10.0.0.5.evil.example", "10.0.0.5.nip.io:8000", "10.0.0", "0x7f.1", "[evil.example]", "[10.0.0.5", "::1"),
    ],
)
def test_and_to_no_other(host: str) -> None:
    status, headers, body = ask("/", Settings(hosts=LOOPBACK), host=host)
    assert status == 421
    assert headers["content-type"] == "application/problem+json"
    assert body["type"] == "/docs#misdirected"


def test_a_client_that_names_no_host_is_no_browser() -> None:
    assert ask("/", Settings(hosts=LOOPBACK))[0] == 200


def test_whoever_is_refused_is_told_what_helps() -> None:
    assert "--allow-host" in ask("/", Settings(hosts=LOOPBACK), host="shop.example")[2]["detail"]
    assert "proxy" in ask("/", Settings(), method="POST", host="a", origin="http://b")[2]["detail"]


@pytest.mark.parametrize("name", ["", "http://shop.example", "shop.example/clothing", "*", "*.example", "["])
def test_what_is_no_name_of_a_host_is_not_taken_for_one(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a host"):
        allowed_hosts("127.0.0.1", {name})


HEADS = st.text(st.characters(codec="latin-1")) | st.sampled_from(["http://[", "[", "localhost", "Basic =", "Bearer"])


@given(host=HEADS, origin=HEADS, authorization=HEADS)
def test_no_head_is_more_than_refused(host: str, origin: str, authorization: str) -> None:
    settings = Settings(hosts=LOOPBACK, key=KEY)
    status, headers, _ = ask("/metrics", settings, method="POST", host=host, origin=origin, authorization=authorization)
    assert status in (401, 403, 421)
    assert headers["x-content-type-options"] == "nosniff"


def test_which_names_are_allowed() -> None:
    assert "shop.example" in allowed_hosts("127.0.0.1", {"shop.example:8000"})
    assert "192.0.2.1" in allowed_hosts("192.0.2.1", set())
    assert allowed_hosts("Shop.Example", set()) == {"localhost", "shop.example"}
    assert allowed_hosts("0.0.0.0", set()) == allowed_hosts("::", set()) == frozenset()
    assert "evil.example" not in allowed_hosts("0.0.0.0", {"shop.example"})
    assert "shop.example" in allowed_hosts("0.0.0.0", {"shop.example"})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec_fetch_site": "same-origin", "origin": "http://localhost"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"origin": "http://localhost:8000"}, 200),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "localhost:8000"}, 403),
    ],
)
def test_only_the_own_page_may_post(headers: dict[str, str], status: int) -> None:
    assert ask("/v1/x", Settings(), method="POST", host="localhost:8000", **headers)[0] == status
    assert ask("/v1/x", Settings(), method="GET", host="localhost:8000", **headers)[0] == 200


KEY = "s3cret key"


@pytest.mark.parametrize("path", ["/v1/model", "/v1/", "/v1", "/metrics"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer {KEY}"}, 200),
        ({"x_api_key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}x"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"x_api_key": ""}, 401),
        ({"x_api_key": "\xff"}, 401),
        ({"authorization": "Basic ???"}, 401),
    ],
)
def test_the_key(path: str, headers: dict[str, str], status: int) -> None:
    found, answered, body = ask(path, Settings(key=KEY), **headers)
    assert found == status
    if status == 401:
        assert answered["www-authenticate"] == "Bearer"
        assert KEY not in json.dumps(body)


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/docs", "/openapi.json", "/healthz", "/readyz", "/v10"])
def test_what_needs_no_key(path: str) -> None:
    assert ask(path, Settings(key=KEY))[0] == 200


@given(shown=st.text(st.characters(codec="latin-1")))
def test_no_other_key_opens(shown: str) -> None:
    if shown.strip() != KEY:
        assert ask("/v1/x", Settings(key=KEY), x_api_key=shown)[0] == 401


@pytest.mark.parametrize("key", ["", " ", "a\nb", "ключ", " a"])
def test_keys_that_no_header_can_hold(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        Settings(key=key)


@pytest.mark.parametrize(
    ("head", "pieces", "stopping", "read", "closed"),
    [
        ({}, 1, False, 0, False),
        ({}, 1, True, 0, True),
        ({"content_length": "0"}, 1, False, 0, False),
        ({"content_length": "9"}, 1, False, 1, True),
        ({"content_length": "9"}, 3, False, 3, True),
        ({"transfer_encoding": "chunked"}, 2, False, 2, True),
        ({"content_length": "9", "expect": "100-continue"}, 1, False, 0, True),
    ],
)
def test_of_a_refused_body_what_comes_is_read_and_no_more(
    head: dict[str, str], pieces: int, stopping: bool, read: int, closed: bool
) -> None:
    coming = [{"type": "http.request", "body": b"x", "more_body": number + 1 < pieces} for number in range(pieces)]
    sent: list[Message] = []

    async def receive() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    settings = Settings(key=KEY)
    admission = Admission(settings)
    admission.stopping = stopping
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in head.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": headers}
    asyncio.run(Guard(hello, settings, set(), Metrics(), admission)(scope, receive, send))
    assert sent[0]["status"] == 401
    assert pieces - len(coming) == read
    assert ((b"connection", b"close") in sent[0]["headers"]) == closed
    assert not sent[-1].get("more_body")


def test_every_answer_has_strict_headers() -> None:
    for status, headers, _ in (ask("/", Settings()), ask("/v1/x", Settings(key=KEY))):
        assert status in (200, 401)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_head_is_answered_as_get() -> None:
    assert ask("/", Settings(), method="HEAD")[2] == b"GET"


@pytest.mark.parametrize(("allowed", "told"), [("GET", "GET, HEAD"), ("POST", "POST")])
def test_head_is_allowed_where_get_is(allowed: str, told: str) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 405, "headers": [(b"allow", allowed.encode())]})
        await send({"type": "http.response.body"})

    assert ask("/", Settings(), refuse, method="PUT")[1]["allow"] == told


def test_a_limit_must_be_above_nothing() -> None:
    with pytest.raises(ValueError, match="files must be above 0"):
        Settings(files=0)
