"""One file over HTTPS, in as many attempts and runs as it takes.

A download that was cut off goes on where it stopped if the server can continue it (RFC 9110: ``Range`` with the old
response's validator in ``If-Range``, so that halves of two versions never meet); otherwise it starts again.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeVar
from urllib.parse import urlsplit

from clothing_classifier import __version__
from clothing_classifier.dataset.manifest import DatasetError

PAUSES: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each further attempt; an attempt that brought something begins the list again."""

TRY_AGAIN: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
"""HTTP status codes of failures that may pass by themselves."""

_TIMEOUT: Final = 30.0
_PIECE: Final = 2**18
_GO_ON: Final = "run the command again to go on"

_T = TypeVar("_T")


class FetchError(DatasetError):
    """The dataset did not arrive. The message says why and what to do."""


class Lost(Exception):
    """An attempt failed in a way that may pass by itself."""


class Reporter(Protocol):
    """What a download tells while it goes on."""

    def note(self, text: str) -> None:
        """Say something that a person should know, such as that a connection was lost."""

    def advance(self, doing: str, done: int, total: int | None) -> None:
        """Say how far it is, in bytes; ``total`` is ``None`` if the server does not tell."""


def persist(
    what: str, attempt: Callable[[], _T], arrived: Callable[[], int], reporter: Reporter, pauses: Sequence[float]
) -> _T:
    """Make attempts until one succeeds, or as many in a row as there are pauses have brought nothing.

    Args:
        what: what is downloaded, for the message.
        attempt: raises `Lost` for a failure that may pass by itself.
        arrived: returns how many bytes are here.
        reporter: what is told of failures.
        pauses: seconds to wait before each further attempt.

    Returns:
        What the attempt returns.

    Raises:
        FetchError: they all failed.
    """
    left = list(pauses)
    while True:
        before = arrived()
        try:
            return attempt()
        except Lost as error:
            if arrived() > before:
                left = list(pauses)
            if not left:
                raise FetchError(f"{what}: {error}; {_GO_ON}") from error
            pause = left.pop(0)
            reporter.note(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)


def download(url: str, file: Path, reporter: Reporter, *, pauses: Sequence[float] = PAUSES) -> None:
    """Download a file, going on with what an earlier call for the same address left in ``FILE.part``.

    Args:
        url: HTTPS; HTTP only to this machine itself.
        file: where it goes; it is there as a whole or not at all.
        reporter: what is told of the progress.
        pauses: seconds to wait before each further attempt.

    Raises:
        FetchError: the address is refused, nothing is there, the connection cannot be made or keeps failing, or the
            disk does not take it. What has arrived stays in ``FILE.part``.
    """
    _check_address(url)
    _Download(url, file, reporter).run(pauses)


class _Download:
    def __init__(self, url: str, file: Path, reporter: Reporter) -> None:
        self.url = url
        self.file = file
        self.part = file.with_name(file.name + ".part")
        # Which version of the file the part is of, as the server calls it. Without it the part cannot be continued.
        self.version = file.with_name(file.name + ".part.version")
        self.reporter = reporter

    def run(self, pauses: Sequence[float]) -> None:
        try:
            persist(self.url, self.attempt, self.arrived, self.reporter, pauses)
            self.part.replace(self.file)
            self.version.unlink(missing_ok=True)
        except OSError as error:  # those of the network are explained where they happen
            raise FetchError(f"{self.part}: cannot be written ({error.strerror}); make room, then {_GO_ON}") from error

    def arrived(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def attempt(self) -> None:
        """Make one request, and add what it brings to the part until that is whole."""
        request = urllib.request.Request(self.url, headers={"User-Agent": f"clothing-classifier/{__version__}"})
        have = self.arrived()
        if have and self.version.exists():
            request.add_header("Range", f"bytes={have}-")
            request.add_header("If-Range", self.version.read_text("ascii"))
        try:
            response = _opener(self.url).open(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
                    return  # it was whole already
                self.refuse(error)
        except (OSError, http.client.HTTPException) as error:
            raise _explain(self.url, error) from error
        with response:
            self.receive(response, have)

    def receive(self, response: Any, have: int) -> None:
        headers = response.headers
        if response.status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
            if found is None or int(found[1]) != have:
                self.version.unlink(missing_ok=True)
                raise Lost("the server sent another part of the file than it was asked for")
            total: int | None = int(found[2])
        else:
            if have:
                self.reporter.note("the server cannot go on where the download stopped; it starts again")
            have = 0
            length = headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        with self.part.open("ab" if have else "wb") as part:
            if not have:
                self.remember(headers)
            while True:
                self.reporter.advance(f"Downloading from {urlsplit(self.url).hostname}", have, total)
                try:
                    piece = response.read1(_PIECE)
                except (OSError, http.client.HTTPException) as error:
                    raise _explain(self.url, error) from error
                if not piece:
                    break
                part.write(piece)
                part.flush()
                have += len(piece)
        if total is not None and have != total:
            raise Lost(f"the connection broke off after {have:,} of {total:,} bytes")

    def remember(self, headers: Any) -> None:
        etag = headers.get("ETag", "")
        # A weak validator promises the same meaning, not the same bytes.
        version = etag if etag.startswith('"') else headers.get("Last-Modified", "")
        if version and version.isascii():
            self.version.write_text(version, "ascii")
        else:
            self.version.unlink(missing_ok=True)

    def refuse(self, error: urllib.error.HTTPError) -> NoReturn:
        answer = f"the server answered {error.code} {error.reason}"
        if error.code == 416:
            self.version.unlink(missing_ok=True)
            raise Lost("the file has changed on the server")
        if error.code in TRY_AGAIN:
            raise Lost(answer)
        if error.code in (404, 410):
            raise FetchError(f"{self.url}: there is no such file on the server ({error.code}); try --url")
        raise FetchError(f"{self.url}: {answer}; try again later, or --url")


def _explain(url: str, error: Exception) -> Exception:
    """Return the exception to raise for a connection that failed."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, http.client.InvalidURL):
        return FetchError(f"{url}: is not an address of the web ({reason})")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return FetchError(
            f"{url}: the server's certificate cannot be trusted ({reason.verify_message}); check this machine's clock "
            "and whether a proxy stands in between"
        )
    if isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError):
        return FetchError(f"{url}: no secure connection can be made ({reason.reason}); check the address and the proxy")
    if isinstance(reason, socket.gaierror):
        return Lost("the server's name cannot be looked up; is there a connection to the internet?")
    if isinstance(reason, TimeoutError):
        return Lost("the server is silent")
    return Lost(f"the connection is lost ({reason if str(reason) else type(reason).__name__})")


def _check_address(url: str) -> None:
    """Refuse an address over which others could change what arrives."""
    try:
        address = urlsplit(url)
        host = address.hostname or ""
    except ValueError:
        raise FetchError(f"{url}: is not an address of the web") from None
    if not host or address.scheme not in ("https", "http"):
        raise FetchError(f"{url}: is not an address of the web; it should start with https://")
    if address.scheme == "http" and not _is_this_machine(host):
        raise FetchError(f"{url}: over http anyone on the way could change what arrives; use https")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if (req.type, urlsplit(newurl).scheme) == ("https", "http"):
            raise FetchError(f"{req.full_url}: the server leads on to {newurl}, away from https; this is refused")
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_Redirects()]
    if _is_this_machine(urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))  # no proxy leads back to this machine
    return urllib.request.build_opener(*handlers)
