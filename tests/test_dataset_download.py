from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from clothing_classifier.dataset import download as room
from clothing_classifier.dataset.download import FetchError, download

Respond = Callable[[BaseHTTPRequestHandler], None]
Loopback = Callable[[Respond], str]

CONTENT = np.random.default_rng(0).bytes(1_000_000)
NEWER = np.random.default_rng(1).bytes(900_000)
QUICK = (0.0, 0.0)


class Told:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[int, int | None]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, doing: str, done: int, total: int | None) -> None:
        assert doing == "Downloading from 127.0.0.1"
        self.steps.append((done, total))


class Served:
    """A server of one file; each of its answers may be cut off after some bytes."""

    def __init__(
        self, content: bytes = CONTENT, *, etag: str = '"one"', ranges: bool = True, cuts: tuple[int | None, ...] = ()
    ) -> None:
        self.content = content
        self.etag = etag
        self.ranges = ranges
        self.cuts = list(cuts)
        self.requests: list[Message] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers
        self.requests.append(asked)
        start = 0
        if self.ranges and "Range" in asked and asked["If-Range"] == self.etag:
            start = int(asked["Range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cuts.pop(0) if self.cuts else None])
        handler.close_connection = True


def answer(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Respond:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return respond


def in_turn(*responds: Respond) -> Respond:
    """Answer the first request by the first, and so on; those after the last by the last."""
    left = list(responds)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.zip"


def test_a_file_arrives_whole_and_alone(loopback: Loopback, file: Path) -> None:
    told = Told()
    download(loopback(Served()), file, told, pauses=QUICK)
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file]
    assert told.notes == []
    assert told.steps[0] == (0, len(CONTENT))
    assert told.steps[-1] == (len(CONTENT), len(CONTENT))
    assert len(told.steps) > 3


def test_a_connection_that_breaks_off_is_continued(loopback: Loopback, file: Path) -> None:
    served, told = Served(cuts=(300_000, 1, 400_000)), Told()
    download(loopback(served), file, told, pauses=QUICK)
    assert file.read_bytes() == CONTENT
    ranges = [request["Range"] for request in served.requests]
    assert ranges == [None, "bytes=300000-", "bytes=300001-", "bytes=700001-"]
    assert {request["If-Range"] for request in served.requests[1:]} == {'"one"'}
    assert told.notes[0].startswith("the connection broke off after 300,000 of 1,000,000 bytes; trying again")


def test_what_another_run_left_is_continued(loopback: Loopback, file: Path) -> None:
    served = Served(cuts=(300_000,))
    url = loopback(served)
    with pytest.raises(FetchError, match=r"broke off .*; run the command again to go on"):
        download(url, file, Told(), pauses=())
    assert not file.exists()
    assert (file.parent / "file.zip.part").read_bytes() == CONTENT[:300_000]
    download(url, file, Told(), pauses=())
    assert served.requests[1]["Range"] == "bytes=300000-"
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file]


def test_a_server_that_cannot_continue_starts_again_and_it_is_said(loopback: Loopback, file: Path) -> None:
    told = Told()
    download(loopback(Served(ranges=False, cuts=(300_000,))), file, told, pauses=QUICK)
    assert file.read_bytes() == CONTENT
    assert told.notes[1] == "the server cannot go on where the download stopped; it starts again"


def test_halves_of_two_versions_never_meet(loopback: Loopback, file: Path) -> None:
    old, new = Served(cuts=(300_000,)), Served(NEWER, etag='"two"')
    download(loopback(in_turn(old, new)), file, Told(), pauses=QUICK)
    assert file.read_bytes() == NEWER


@pytest.mark.parametrize("etag", ['W/"one"', "", "no-quotes"])
def test_without_a_strong_validator_nothing_is_continued(loopback: Loopback, file: Path, etag: str) -> None:
    served = Served(etag=etag, cuts=(300_000,))
    download(loopback(served), file, Told(), pauses=QUICK)
    assert [request["Range"] for request in served.requests] == [None, None]
    assert file.read_bytes() == CONTENT


def test_a_date_is_a_validator_too(loopback: Loopback, file: Path) -> None:
    date = "Wed, 01 Jan 2025 00:00:00 GMT"
    cut = answer(200, {"Last-Modified": date, "Content-Length": "9", "Connection": "close"}, b"first")
    asked = []

    def rest(handler: BaseHTTPRequestHandler) -> None:
        asked.append((handler.headers["Range"], handler.headers["If-Range"]))
        answer(206, {"Content-Range": "bytes 5-8/9"}, b"last")(handler)

    download(loopback(in_turn(cut, rest)), file, Told(), pauses=QUICK)
    assert asked == [("bytes=5-", date)]
    assert file.read_bytes() == b"firstlast"


def test_another_part_than_was_asked_for_is_not_taken(loopback: Loopback, file: Path) -> None:
    wrong = answer(206, {"Content-Range": f"bytes 0-4/{len(CONTENT)}"}, b"wrong")
    told = Told()
    download(loopback(in_turn(Served(cuts=(300_000,)), wrong, Served())), file, told, pauses=QUICK)
    assert file.read_bytes() == CONTENT
    assert "another part" in told.notes[1]


def test_a_part_that_is_whole_already_is_taken(loopback: Loopback, file: Path) -> None:
    served = Served(cuts=(len(CONTENT) - 1,))
    url = loopback(served)
    with pytest.raises(FetchError):
        download(url, file, Told(), pauses=())
    with (file.parent / "file.zip.part").open("ab") as part:
        part.write(CONTENT[-1:])  # as if it was stopped between the last byte and the new name
    download(url, file, Told(), pauses=())
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(loopback: Loopback, file: Path) -> None:
    served = Served(cuts=(300_000,))
    url = loopback(served)
    with pytest.raises(FetchError):
        download(url, file, Told(), pauses=())
    served.content = CONTENT[:200_000]
    told = Told()
    download(url, file, told, pauses=QUICK)
    assert file.read_bytes() == CONTENT[:200_000]
    assert "has changed on the server" in told.notes[0]


def send_chunks(whole: bool) -> Respond:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(CONTENT), 100_000):
            piece = CONTENT[start : start + 100_000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if not whole and start == 500_000:
                handler.close_connection = True
                return
        handler.wfile.write(b"0\r\n\r\n")

    return respond


def test_a_length_that_is_not_told_does_no_harm(loopback: Loopback, file: Path) -> None:
    """GitHub's archives are made while they are sent."""
    told = Told()
    download(loopback(in_turn(send_chunks(whole=False), send_chunks(whole=True))), file, told, pauses=QUICK)
    assert file.read_bytes() == CONTENT
    assert {total for _, total in told.steps} == {None}
    assert "the connection is lost" in told.notes[0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_answer_that_may_change_is_asked_for_again(loopback: Loopback, file: Path, status: int) -> None:
    told = Told()
    download(loopback(in_turn(answer(status), answer(status), Served())), file, told, pauses=QUICK)
    assert file.read_bytes() == CONTENT
    assert len(told.notes) == 2
    with pytest.raises(FetchError, match=f"the server answered {status}"):
        download(loopback(answer(status)), file, Told(), pauses=QUICK)


@pytest.mark.parametrize(
    ("status", "message"), [(404, "there is no such file on the server"), (403, "answered 403 Forbidden; try again")]
)
def test_an_answer_that_will_not_change_is_final(loopback: Loopback, file: Path, status: int, message: str) -> None:
    told = Told()
    url = loopback(in_turn(answer(status), Served()))
    with pytest.raises(FetchError, match=message) as error:
        download(url, file, told, pauses=QUICK)
    assert str(error.value).startswith(f"{url}: ")
    assert told.notes == []
    assert list(file.parent.iterdir()) == []


def test_progress_gives_new_patience_and_silence_takes_it(loopback: Loopback, file: Path) -> None:
    served = Served(cuts=(1, 1, 1, 1, 1))
    download(loopback(served), file, Told(), pauses=(0.0,))
    assert len(served.requests) == 6
    nothing = Served(cuts=(0, 0, 0))
    with pytest.raises(FetchError):
        download(loopback(nothing), file.with_name("other"), Told(), pauses=(0.0,))
    assert len(nothing.requests) == 2


def test_the_pauses_are_kept(loopback: Loopback, file: Path) -> None:
    begin = time.monotonic()
    download(loopback(in_turn(answer(503), Served())), file, Told(), pauses=(0.2,))
    assert time.monotonic() - begin >= 0.2


def test_a_server_that_is_not_there_is_told(file: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"
    told = Told()
    with pytest.raises(FetchError, match=r"the connection is lost \(.*refused.*\); run the command again"):
        download(url, file, told, pauses=QUICK)
    assert len(told.notes) == 2


def test_a_server_that_falls_silent_is_given_up(
    loopback: Loopback, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_TIMEOUT", 0.2)
    end = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")
        end.wait(20)

    try:
        with pytest.raises(FetchError, match="the server is silent"):
            download(loopback(stall), file, Told(), pauses=())
    finally:
        end.set()
    assert (file.parent / "file.zip.part").read_bytes() == b"half"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.zip",
        "http://127.0.0.1.example.org/a.zip",
        "http://localhost@example.org/a.zip",
        "ftp://127.0.0.1/a.zip",
        "file:///etc/hostname",
        "https://",
        "a.zip",
        "",
        "http://[::1",
    ],
)
def test_an_address_that_is_not_safe_is_refused_unasked(file: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: pytest.fail("it was asked"))
    with pytest.raises(FetchError, match=r"use https|not an address of the web"):
        download(url, file, Told(), pauses=())


def test_a_redirect_is_followed_also_to_continue(loopback: Loopback, file: Path) -> None:
    served = Served(cuts=(300_000,))
    target = loopback(served)
    download(loopback(answer(302, {"Location": target})), file, Told(), pauses=QUICK)
    assert file.read_bytes() == CONTENT
    assert served.requests[1]["Range"] == "bytes=300000-"


@pytest.mark.parametrize("target", ["http://example.org/a.zip", "ftp://127.0.0.1/a.zip", "file:///etc/hostname"])
def test_a_redirect_to_where_it_is_not_safe_is_refused(loopback: Loopback, file: Path, target: str) -> None:
    told = Told()
    with pytest.raises(FetchError, match=r"use https|not an address of the web|answered 302"):
        download(loopback(answer(302, {"Location": target})), file, told, pauses=QUICK)
    assert told.notes == []


def test_a_circle_of_redirects_ends(loopback: Loopback, file: Path) -> None:
    with pytest.raises(FetchError, match="answered 302"):
        download(loopback(answer(302, {"Location": "/again"})), file, Told(), pauses=QUICK)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_is_full_is_told_and_room_lets_it_go_on(loopback: Loopback, file: Path) -> None:
    import resource

    served = Served()
    url = loopback(served)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        with pytest.raises(FetchError, match=r"file.zip.part: cannot be written \(.*\); make room, then run"):
            download(url, file, Told(), pauses=QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(served.requests) == 1, "the disk is not asked again"
    assert (file.parent / "file.zip.part").stat().st_size == 400_000
    download(url, file, Told(), pauses=())
    assert served.requests[1]["Range"] == "bytes=400000-"
    assert file.read_bytes() == CONTENT


# ------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine that nobody has signed, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    path = tmp_path_factory.mktemp("tls") / "this-machine.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    make += [
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]
    subprocess.run(make, cwd=path.parent, check=True, capture_output=True)
    path.write_bytes((path.parent / "cert.pem").read_bytes() + (path.parent / "key.pem").read_bytes())
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[Callable[[bytes], str]]:
    """A function: a whole answer → the address of an HTTPS server on this machine that gives it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(response: bytes) -> None:
        while True:
            try:
                with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                    connection.recv(65536)
                    connection.sendall(response)
            except ssl.SSLError:
                continue
            except OSError:
                return  # the listener is closed

    threads: list[threading.Thread] = []

    def start(response: bytes) -> str:
        threads.append(threading.Thread(target=serve, args=(response,)))
        threads[-1].start()
        return f"https://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join()


def test_a_certificate_that_cannot_be_trusted_is_final(secure: Callable[[bytes], str], file: Path) -> None:
    told = Told()
    url = secure(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    with pytest.raises(FetchError, match=r"certificate cannot be trusted \(.*self.signed"):
        download(url, file, told, pauses=QUICK)
    assert told.notes == []
    assert not file.exists()


def test_https_is_never_left_for_http(
    secure: Callable[[bytes], str],
    certificate: Path,
    loopback: Loopback,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    served = Served()
    target = loopback(served)
    location = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
    with pytest.raises(FetchError, match="away from https; this is refused"):
        download(secure(location), file, Told(), pauses=QUICK)
    assert served.requests == []


def test_a_trusted_certificate_is_taken(
    secure: Callable[[bytes], str], certificate: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    download(secure(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"), file, Told(), pauses=())
    assert file.read_bytes() == b"good"


def test_a_server_without_tls_is_told(loopback: Loopback, file: Path) -> None:
    with pytest.raises(FetchError, match="no secure connection can be made"):
        download(loopback(Served()).replace("http:", "https:"), file, Told(), pauses=QUICK)
