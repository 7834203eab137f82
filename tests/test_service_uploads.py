from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from clothing_classifier.service.admission import Admission
from clothing_classifier.service.problems import Problem
from clothing_classifier.service.settings import Settings
from clothing_classifier.service.uploads import Upload, Uploads, read_uploads

DEFAULT = Settings()
SMALL = Settings(bytes=100, request_bytes=2000, files=3, held_bytes=3000)


def read(chunks: Sequence[bytes], settings: Settings = SMALL, /, **headers: str) -> Uploads:
    """Read a body that comes in these chunks."""
    coming = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    coming.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    scope = {
        "type": "http",
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    admission = Admission(settings)

    async def run() -> Uploads:
        with admission.body() as hold:
            return await read_uploads(Request(scope, receive), settings, admission, hold)

    try:
        return asyncio.run(run())
    finally:
        assert admission.bytes == 0


def refused(chunks: Sequence[bytes], settings: Settings = SMALL, /, **headers: str) -> Problem:
    with pytest.raises(Problem) as caught:
        read(chunks, settings, **headers)
    return caught.value


def part(content: bytes, disposition: str, *further: str) -> bytes:
    lines = "\r\n".join([f"Content-Disposition: form-data; {disposition}", *further])
    return b"--cut\r\n" + lines.encode() + b"\r\n\r\n" + content + b"\r\n"


FORM = {"content_type": "multipart/form-data; boundary=cut"}
END = b"--cut--\r\n"


@pytest.mark.parametrize("media_type", ["image/jpeg", "application/x-www-form-urlencoded", "nonsense", ""])
def test_one_photo_is_the_body_whatever_it_is_called(media_type: str) -> None:
    assert read([b"ab", b"c"], content_type=media_type) == Uploads([Upload("photo", b"abc")], alone=True)


def test_a_form_gives_its_files_in_their_order() -> None:
    form = [
        part(b"1", 'name="photos"; filename="a.jpg"'),
        part(b"not a file", 'name="note"'),
        part(b"2", 'name="anything"; filename="größe.jpg"; filename*=UTF-8\'\'x.jpg', "Content-Type: image/jpeg"),
        part(b"3", 'name="photos"', "Content-Type: image/png"),
    ]
    uploads = read([*form, END], **FORM)
    assert [(file.name, file.content) for file in uploads.files] == [
        ("a.jpg", b"1"),
        ("größe.jpg", b"2"),
        ("photo", b"3"),
    ]
    assert not uploads.alone


def test_a_file_over_the_limit_is_dropped_and_the_others_stay() -> None:
    form = [part(b"x" * size, f'name="photos"; filename="{size}"') for size in (100, 101, 0)]
    files = read([*form, END], **FORM).files
    assert [len(file.content) for file in files] == [100, 0, 0]
    assert [file.trouble and file.trouble.kind for file in files] == [None, "too-large", "unreadable"]


def test_a_photo_as_large_as_allowed_is_taken() -> None:
    assert read([b"x" * 60, b"x" * 40]).files == [Upload("photo", b"x" * 100)]
    assert read([b"x" * 100], content_length="100").files == [Upload("photo", b"x" * 100)]


def test_a_file_over_the_limit_is_dropped_however_it_comes() -> None:
    chunks = [part(b"x" * 60, 'name="photos"; filename="a"')[:-2], b"x" * 41, b"x" * 9, b"\r\n", END]
    (file,) = read(chunks, **FORM).files
    assert (file.content, file.trouble and file.trouble.kind) == (b"", "too-large")


def test_a_part_has_no_head_but_its_own() -> None:
    form = [part(b"1", 'name="photos"; filename="a"'), b"--cut\r\nX-Note: none\r\n\r\n2\r\n", END]
    assert read(form, **FORM).files == [Upload("a", b"1")]
    shouted = part(b"1", 'name="photos"; filename="a"').replace(b"Content-Disposition", b"CONTENT-DISPOSITION")
    assert read([shouted, END], **FORM).files == [Upload("a", b"1")]


def test_so_many_fields_may_stand_beside_the_photos() -> None:
    settings = Settings(bytes=100, request_bytes=10**6, files=3)
    form = [*[part(b"", 'name="x"')] * 64, *[part(b"1", 'name="photos"; filename="a"')] * 3, END]
    assert len(read(form, settings, **FORM).files) == 3


def test_what_follows_the_end_of_a_form_means_nothing() -> None:
    assert len(read([part(b"1", 'name="photos"; filename="a"'), END, b"--cut\r\nmore"], **FORM).files) == 1


@pytest.mark.parametrize(
    ("chunks", "headers", "kind"),
    [
        ([], {}, "no-photo"),
        ([b"x" * 60, b"x" * 41], {}, "too-large"),
        ([], {"content_length": "101"}, "too-large"),
        ([], {"content_encoding": "gzip"}, "unsupported-encoding"),
        ([END], {"content_type": "multipart/mixed; boundary=cut"}, "unsupported-encoding"),
        ([END], {"content_type": "multipart/form-data"}, "malformed"),
        ([END], {"content_type": "multipart/form-data; boundary=" + "b" * 300}, "malformed"),
        ([b"something else"], FORM, "malformed"),
        ([part(b"1", 'name="photos"; filename="a"')], FORM, "malformed"),
        ([part(b"1", 'name="note"'), END], FORM, "no-photo"),
        ([part(b"1", 'name="photos"; filename="a"'), part(b"2", 'name="photos"'), END], FORM, "no-photo"),
        ([*[part(b"1", 'name="photos"; filename="a"')] * 4, END], FORM, "too-many-files"),
        ([*[part(b"", 'name="x"')] * 40, END], FORM, "too-many-bytes"),
        ([b"x" * 1000, b"x" * 1001], FORM, "too-many-bytes"),
        ([], FORM | {"content_length": "2001"}, "too-many-bytes"),
    ],
)
def test_what_is_refused(chunks: list[bytes], headers: dict[str, str], kind: str) -> None:
    if kind == "too-many-bytes" and chunks and b"x" * 1000 in chunks:
        chunks = [part(chunks[0], 'name="photos"; filename="a"')] * 2
    assert refused(chunks, **headers).kind == kind


@pytest.mark.parametrize("name", ["photos", "photo"])
def test_whoever_sends_a_photo_without_a_filename_is_told_so(name: str) -> None:
    assert "filename" in refused([part(b"1", f'name="{name}"'), END], **FORM).detail


def test_too_many_fields_are_refused() -> None:
    settings = Settings(bytes=100, request_bytes=10**6)
    form = [*[part(b"", 'name="x"')] * 65, part(b"1", 'name="photos"; filename="a"'), END]
    assert refused(form, settings, **FORM).detail == "The form has more than 64 fields besides its files."


def test_bodies_that_are_more_than_can_be_held_are_refused_before_they_come() -> None:
    settings = Settings(bytes=100, held_bytes=50)
    problem = refused([], settings, content_length="51")
    assert problem.kind == "overloaded"
    assert int(problem.headers["Retry-After"]) >= 1
    assert refused([b"x" * 30, b"x" * 30], settings).kind == "overloaded"


def test_bytes_that_are_only_promised_take_no_room() -> None:
    settings = Settings(bytes=40, held_bytes=50)
    admission = Admission(settings)
    arrived = asyncio.Event()

    async def upload(content: bytes) -> Uploads:
        begun = False

        async def receive() -> dict[str, Any]:
            nonlocal begun
            await (arrived.wait() if begun else asyncio.sleep(0))  # both are promised before either comes
            more, begun = not begun, True
            return {"type": "http.request", "body": content if more else b"", "more_body": more}

        request = Request({"type": "http", "headers": [(b"content-length", b"40")]}, receive)
        with admission.body() as hold:
            return await read_uploads(request, settings, admission, hold)

    async def run() -> tuple[Uploads, Uploads]:
        both = asyncio.gather(upload(b"a" * 20), upload(b"b" * 20))
        while admission.bytes < 40 and not both.done():
            await asyncio.sleep(0)
        arrived.set()
        return await both

    assert [uploads.files[0].content[:1] for uploads in asyncio.run(run())] == [b"a", b"b"]


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clothing_classifier.service.uploads._PATIENCE", 0.05)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def run() -> None:
        admission = Admission(SMALL)
        with admission.body() as hold:
            await read_uploads(Request({"type": "http", "headers": []}, receive), SMALL, admission, hold)

    with pytest.raises(Problem) as caught:
        asyncio.run(run())
    assert caught.value.kind == "too-slow"


def wait_for_the_rest(first: bytes, seconds: float) -> Uploads:
    """Read a body whose end comes so many seconds after its beginning."""
    coming = [(0.0, first, True), (seconds, b"", False)]

    async def receive() -> dict[str, Any]:
        pause, body, more = coming[0]
        await asyncio.sleep(pause)
        coming.pop(0)
        return {"type": "http.request", "body": body, "more_body": more}

    async def run() -> Uploads:
        admission = Admission(DEFAULT)
        with admission.body() as hold:
            return await read_uploads(Request({"type": "http", "headers": []}, receive), DEFAULT, admission, hold)

    return asyncio.run(run())


def test_a_body_earns_time_by_what_has_come_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clothing_classifier.service.uploads._PATIENCE", 0.05)
    assert len(wait_for_the_rest(bytes(64 * 2**10), 0.2).files[0].content) == 64 * 2**10
    with pytest.raises(Problem) as caught:
        wait_for_the_rest(b"x", 0.3)
    assert caught.value.kind == "too-slow"


def test_a_body_whose_sender_went_away_is_no_photo() -> None:
    begun: dict[str, Any] = {"type": "http.request", "body": b"half", "more_body": True}
    coming = [begun, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def run() -> None:
        admission = Admission(SMALL)
        with admission.body() as hold:
            await read_uploads(Request({"type": "http", "headers": []}, receive), SMALL, admission, hold)

    with pytest.raises(ClientDisconnect):
        asyncio.run(run())


@given(
    files=st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n'), min_size=1), st.binary()),
        min_size=1,
        max_size=3,
    ),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_however_a_form_is_cut_its_files_are_the_same(files: list[tuple[str, bytes]], sizes: list[int]) -> None:
    files = [(name, content.replace(b"--cut", b"")) for name, content in files]
    form = b"".join(part(content, f'name="photos"; filename="{name}"') for name, content in files) + END
    chunks, place = [], 0
    for size in sizes:
        chunks.append(form[place : place + size])
        place += size
    settings = Settings(bytes=10**6, request_bytes=10**6)
    read_files = read([*chunks, form[place:]], settings, **FORM).files
    assert [file.content for file in read_files] == [content for _, content in files]


@given(body=st.binary(max_size=300), boundary=st.sampled_from(["cut", "x", "--"]))
def test_no_body_does_more_than_be_refused(body: bytes, boundary: str) -> None:
    settings = Settings(bytes=10**6, request_bytes=10**6)
    with suppress(Problem):
        assert read([body], settings, content_type=f"multipart/form-data; boundary={boundary}").files
