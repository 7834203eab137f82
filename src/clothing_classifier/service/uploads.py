"""A request's body → photos, in memory only and within limits while it comes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from clothing_classifier.service.admission import Admission, Hold
from clothing_classifier.service.problems import PhotoTrouble, Problem
from clothing_classifier.service.settings import Settings

_PATIENCE: Final = 10.0
"""Seconds that a body may take, whatever its size, and that it may go on to take once the service stops."""

_LEAST_SPEED: Final = 16 * 2**10
"""Bytes of a body that earn it one second more."""

_MOST_FIELDS: Final = 64
"""Parts of a form that are no files; they are passed over."""

_FIELD: Final = "photos"


@dataclass(slots=True)
class Upload:
    """One file of a request.

    Attributes:
        name: as the client calls it.
        content: its bytes; empty where ``trouble`` says why it is not taken.
    """

    name: str
    content: bytes = b""
    trouble: PhotoTrouble | None = None


@dataclass(frozen=True, slots=True)
class Uploads:
    """What a request holds.

    Attributes:
        files: in their order.
        alone: the one file is the whole body, so that its trouble is the request's.
    """

    files: list[Upload]
    alone: bool


async def read_uploads(request: Request, settings: Settings, admission: Admission, hold: Hold) -> Uploads:
    """Read a request's body.

    Raises:
        Problem: the body is over a limit, too slow, not a form as it says, or without a photo.
        ClientDisconnect: the client went away.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Problem(
            "unsupported-encoding", "Send the body without a Content-Encoding.", headers={"Accept-Encoding": "identity"}
        )
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    form = media_type.startswith(b"multipart/")
    if form and media_type != b"multipart/form-data":
        raise Problem("unsupported-encoding", "Of multipart bodies, only multipart/form-data is read.")
    limit = settings.request_bytes if form else settings.bytes
    declared = int(request.headers.get("content-length") or 0)  # the server has checked that it is a number
    if declared > limit:
        raise _too_large(declared, limit, form)
    admission.require_room(declared)
    if form:
        parser = _Form(options.get(b"boundary", b""), settings)
        async for chunk in _chunks(request, limit, admission, hold, form):
            parser.write(chunk)
        return Uploads(parser.finish(), alone=False)
    content = bytearray()
    async for chunk in _chunks(request, limit, admission, hold, form):
        content += chunk
    if not content:
        raise Problem("no-photo", "The body is empty; send a photo's bytes, or a form with files.")
    return Uploads([Upload("photo", bytes(content))], alone=True)


async def _chunks(request: Request, limit: int, admission: Admission, hold: Hold, form: bool) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    end, stop, size = loop.time() + _PATIENCE, math.inf, 0
    while True:
        if admission.stopping:
            stop = min(stop, loop.time() + _PATIENCE)
        try:
            message = await asyncio.wait_for(request.receive(), max(0, min(end, stop, loop.time() + 1) - loop.time()))
        except asyncio.TimeoutError:
            if loop.time() >= stop:
                raise admission.stopped() from None
            if loop.time() >= end:
                raise Problem(
                    "too-slow", f"The body must come within {_PATIENCE:g} s and a second more for each 16 KiB."
                ) from None
            continue
        if loop.time() >= stop:
            raise admission.stopped()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(size, limit, form)
        hold.grow(size)
        end += len(chunk) / _LEAST_SPEED
        if chunk:
            yield chunk
        if not message.get("more_body"):
            return


def _too_large(size: int, limit: int, form: bool) -> Problem:
    if form:
        return Problem(
            "too-many-bytes", f"The form is over the limit of {limit:,} bytes; send fewer photos in one request."
        )
    return Problem("too-large", f"is over the limit of {limit:,} bytes; make it smaller")


class _Form:
    """Reads ``multipart/form-data`` (RFC 7578)."""

    def __init__(self, boundary: bytes, settings: Settings) -> None:
        self._settings = settings
        self._files: list[Upload] = []
        self._content: bytearray | None = None  # of the file that is being read
        self._fields = 0
        self._header = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._complete = False
        if not boundary:
            raise Problem("malformed", "The Content-Type of a form must name its boundary.")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._name,
                    "on_header_value": self._text,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._data,
                    "on_part_end": self._close,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Problem("malformed", "The form's boundary cannot be used.") from error

    def write(self, chunk: bytes) -> None:
        if self._complete:  # what follows the end means nothing (RFC 2046, 5.1.1)
            return
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem(
                "malformed", "The body is not multipart/form-data, or its boundary is another one."
            ) from error

    def finish(self) -> list[Upload]:
        if not self._complete:
            raise Problem("malformed", "The form ends too early.")
        if not self._files:
            raise Problem("no-photo", f"The form holds no file; send each photo as a part {_FIELD} with a filename.")
        return self._files

    def _begin(self) -> None:
        self._headers = {}
        self._content = None

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _text(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        media_type, _ = parse_options_header(self._headers.get(b"content-type", b""))
        if b"filename" not in options and not media_type.startswith((b"image/", b"application/octet-stream")):
            if options.get(b"name") == _FIELD.encode():  # passed over, it would be missing among the results
                raise Problem("no-photo", f"A part {_FIELD} has no filename; give one to each photo.")
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise Problem("malformed", f"The form has more than {_MOST_FIELDS} fields besides its files.")
            return
        if len(self._files) == self._settings.files:
            raise Problem(
                "too-many-files", f"A request may hold {self._settings.files} photos; send the others in further ones."
            )
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._files.append(Upload(name or "photo"))
        self._content = bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._content is None:
            return
        file, limit = self._files[-1], self._settings.bytes
        if len(self._content) + end - start > limit:
            self._content = None  # and the rest of it is passed over
            file.trouble = PhotoTrouble("too-large", f"is over the limit of {limit:,} bytes; make it smaller")
            return
        self._content += data[start:end]

    def _close(self) -> None:
        if self._content is not None:
            self._files[-1].content = bytes(self._content)
            if not self._content:
                self._files[-1].trouble = PhotoTrouble("unreadable", "is empty")
        self._content = None

    def _end(self) -> None:
        self._complete = True
