"""One file over HTTPS, in as many attempts and runs as it takes.

A download that was cut off goes on where it stopped if the server can continue it (RFC 9110: ``Range`` with the old
response's validator in ``If-Range``, so that halves of two versions never meet); otherwise it starts again.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, Protocol
from urllib.parse import urlsplit

from clothing_classifier import __version__
from clothing_classifier.dataset.manifest import DatasetError

_TIMEOUT: Final = 30.0
_PIECE: Final = 2**18
PAUSES: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each further attempt; a connection that brought something starts the list again."""

_TRY_AGAIN: Final = {408, 425, 429, 500, 502, 503, 504}
_AGAIN: Final = "run the command again to go on"


class FetchError(DatasetError):
    """The dataset did not arrive. The message says why and what to do."""


class Reporter(Protocol):
    """What a download tells while it goes on."""

    def note(self, text: str) -> None:
        """Say something that a person should know, such as that a connection was lost."""

    def advance(self, doing: str, done: int, total: int | None) -> None:
        """Say how far it is, in bytes."""


def download(url: str, file: Path, reporter: Reporter, *, pauses: tuple[float, ...] = PAUSES) -> None:
    """Download a file, going on with what an earlier call left in ``FILE.part``.

    Args:
        url: HTTPS; HTTP only to this machine itself.
        file: where it goes; it is there as a whole or not at all.
        reporter: what is told of the progress.
        pauses: seconds to wait before each further attempt.

    Raises:
        FetchError: the address is refused, the file is not there, the connection cannot be made or keeps failing, or
            the disk does not take it. What has arrived stays in ``FILE.part``.
    """
    _check_address(url)
    left = list(pauses)
    while True:
        before = _size(_part(file))
        try:
            _attempt(url, file, reporter)
            return
        except _Lost as error:
            if _size(_part(file)) > before:
                left = list(pauses)
            if not left:
                raise FetchError(f"{url}: {error}; {_AGAIN}") from error
            pause = left.pop(0)
            reporter.note(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)


class _Lost(Exception):
    """A failure that may pass by itself."""


def _part(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _validator(file: Path) -> Path:
    return file.with_name(file.name + ".part.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _attempt(url: str, file: Path, reporter: Reporter) -> None:
    """Make one request and write what it brings.

    Raises:
        _Lost: it broke off.
        FetchError: there is no use in trying again now.
    """
    have, version = _resumable(url, file)
    request = urllib.request.Request(url, headers={"User-Agent": f"clothing-classifier/{__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    try:
        response = _opener(url).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            _refused(url, error, file, have)
            return
    except (OSError, http.client.HTTPException) as error:
        raise _explain(url, error) from error
    with response:
        start, total = _range(response)
        if response.status == 206 and start != have:
            raise FetchError(f"{url}: the server sent another part of the file than it was asked for; try again later")
        if response.status != 206:
            if _size(_part(file)):
                reporter.note("the download cannot be continued (the server has no such way, or a new file); it starts again")
            have = 0
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        _receive(url, response, file, have, total, reporter)
    _replace(_part(file), file)
    _validator(file).unlink(missing_ok=True)


def _receive(url: str, response: Any, file: Path, have: int, total: int | None, reporter: Reporter) -> None:
    doing = f"Downloading {urlsplit(url).hostname}"
    with _open(_part(file), "ab" if have else "wb") as part:
        if not have:
            _remember(url, file, response)
        while True:
            reporter.advance(doing, have, total)
            try:
                piece = response.read1(_PIECE)
            except (OSError, http.client.HTTPException) as error:
                raise _explain(url, error) from error
            if not piece:
                break
            _write(part, piece, file)
            have += len(piece)
    if total is not None and have != total:
        raise _Lost(f"the connection broke off after {have:,} of {total:,} bytes")


# ------------------------------------------------------------------------------------------------------- resuming


def _resumable(url: str, file: Path) -> tuple[int, str]:
    """Return how many bytes there are to go on from, and the version of the file that they are of."""
    try:
        known = json.loads(_validator(file).read_text("utf-8"))
        if known["url"] == url and isinstance(known["version"], str):
            return _size(_part(file)), known["version"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing is known of the part's origin, so that it cannot be continued
    return 0, ""


def _remember(url: str, file: Path, response: Any) -> None:
    _validator(file).unlink(missing_ok=True)
    etag = response.headers.get("ETag", "")
    # A weak validator promises the same meaning, not the same bytes.
    version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    if version and response.headers.get("Accept-Ranges") != "none":
        try:
            _validator(file).write_text(json.dumps({"url": url, "version": version}), "utf-8")
        except OSError as error:
            raise _full(file, error) from error


def _range(response: Any) -> tuple[int | None, int | None]:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None:
        return None, None
    return int(found[1]), int(found[2]) if found[2] != "*" else None


# ------------------------------------------------------------------------------------------------------- failures


def _refused(url: str, error: urllib.error.HTTPError, file: Path, have: int) -> None:
    """Raise what a response that is no success means, or put the file in its place if it was whole already."""
    if error.code == 416 and have:
        if error.headers.get("Content-Range") == f"bytes */{have}":
            _replace(_part(file), file)
            _validator(file).unlink(missing_ok=True)
            return
        _validator(file).unlink(missing_ok=True)
        raise _Lost("the file has changed on the server")
    if error.code in _TRY_AGAIN:
        raise _Lost(f"the server answered {error.code} {error.reason}")
    if error.code in (404, 410):
        raise FetchError(f"{url}: there is no such file on the server ({error.code}); give its address with --url")
    raise FetchError(f"{url}: the server answered {error.code} {error.reason}; try again later, or use --url")


def _explain(url: str, error: Exception) -> Exception:
    """Return the exception to raise for a connection that failed."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, FetchError):
        return reason
    if isinstance(reason, ssl.SSLCertVerificationError):
        return FetchError(
            f"{url}: the server's certificate cannot be trusted ({reason.verify_message}); check the clock and the "
            "network (a proxy?), and do not go on without"
        )
    if isinstance(reason, ssl.SSLError):
        return FetchError(f"{url}: no secure connection can be made ({reason.reason}); check the address and the proxy")
    if isinstance(reason, socket.gaierror):
        return _Lost("the server's name cannot be looked up; is there a connection to the internet?")
    if isinstance(reason, TimeoutError):
        return _Lost(f"the server has been silent for {_TIMEOUT:g} s")
    if isinstance(reason, ConnectionRefusedError):
        return _Lost("the server refuses the connection")
    return _Lost(f"the connection is lost ({reason if str(reason) else type(reason).__name__})")


def _full(file: Path, error: OSError) -> FetchError:
    return FetchError(f"{_part(file)}: cannot be written ({error.strerror}); make room, then {_AGAIN}")


def _open(path: Path, mode: str) -> IO[bytes]:
    try:
        return path.open(mode)
    except OSError as error:
        raise FetchError(f"{path}: cannot be written ({error.strerror})") from error


def _write(part: IO[bytes], piece: bytes, file: Path) -> None:
    try:
        part.write(piece)
        part.flush()
    except OSError as error:
        raise _full(file, error) from error


def _replace(part: Path, file: Path) -> None:
    try:
        part.replace(file)
    except OSError as error:
        raise FetchError(f"{file}: cannot be written ({error.strerror})") from error


# ------------------------------------------------------------------------------------------------------ addresses


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_address(url: str) -> None:
    """Refuse addresses over which others could change what arrives."""
    address = urlsplit(url)
    if not address.hostname or address.scheme not in ("https", "http"):
        raise FetchError(f"{url}: is not an address of the web; it should start with https://")
    if address.scheme == "http" and not _is_this_machine(address.hostname):
        raise FetchError(f"{url}: anyone on the way could change what arrives over http; use https")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_address(newurl)
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise FetchError(f"{req.full_url}: the server leads from https to http ({newurl}), which is refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler | type[urllib.request.BaseHandler]] = [_Redirects]
    if _is_this_machine(urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))  # no proxy leads back to this machine
    return urllib.request.build_opener(*handlers)
