from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")


class Service:
    """A service that runs in a process of its own, spoken to in bytes."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def connect(self, *pieces: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        for piece in pieces:
            connection.sendall(piece)
        return connection

    def ask(self, *pieces: bytes) -> tuple[int, str, bytes]:
        with self.connect(*pieces) as connection:
            return answer(connection)


def answer(connection: socket.socket) -> tuple[int, str, bytes]:
    """Return status, head in lower case, and body of the next answer."""
    with connection.makefile("rb") as stream:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            assert line, f"the connection was closed after {head!r}"
            head += line
        text = head.decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", text)
        return int(text.split()[1]), text, stream.read(int(length[1]) if length else -1)


@contextmanager
def serving(model: Path, *options: str, before: str = "") -> Iterator[Service]:
    """Run a service; ``before`` is Python that its process runs first."""
    code = f"{before}\nfrom clothing_classifier.cli import main\nmain()"
    command = [sys.executable, "-c", code, "serve", "--model", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r":(\d+)/", line)
        assert found, line + process.stderr.read()
        yield Service(process, int(found[1]))
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


@pytest.fixture(scope="module")
def service(tiny_model: Path) -> Iterator[Service]:
    before = (
        "import clothing_classifier.service.server as server, clothing_classifier.service.uploads as uploads\n"
        "server._HEAD_SECONDS = uploads._PATIENCE = 0.5\n"
    )
    with serving(tiny_model, before=before) as running:
        yield running


def photo() -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 12), "red").save(file, "PNG")
    return file.getvalue()


def head(length: int, *further: str) -> bytes:
    lines = ["POST /v1/predictions HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *further]
    return "\r\n".join([*lines, "", ""]).encode()


READY = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_what_is_under_way_is_finished(tiny_model: Path) -> None:
    body = photo()
    with serving(tiny_model) as service, service.connect(head(len(body)), body[:20]) as begun:
        while b"under_way 1.0" not in service.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")[2]:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        while (told := service.ask(READY))[0] == 200:
            time.sleep(0.01)
        assert told[0] == 503
        assert "retry-after: " in told[1]
        status, text, _ = service.ask(head(len(body)), body)
        assert status == 503
        assert "connection: close" in text
        begun.sendall(body[20:])
        status, _, content = answer(begun)
        assert status == 200
        assert json.loads(content)["results"][0]["label"] == "red"
        assert service.process.wait(30) == 0
        assert service.process.stderr is not None
        assert service.process.stderr.read() == ""


def test_an_upload_that_trickles_does_not_hold_up_a_stop(tiny_model: Path) -> None:
    before = "import clothing_classifier.service.uploads as uploads; uploads._PATIENCE = 1.0"
    with (
        serving(tiny_model, before=before) as service,
        service.connect(head(10_000_000), bytes(500_000)) as begun,
        service.connect(head(10_000_000), bytes(500_000)) as silent,
    ):
        while b"under_way 2.0" not in service.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")[2]:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        begun.settimeout(0.1)
        told = b""
        while not told and time.monotonic() - started < 15:
            with suppress(TimeoutError):
                begun.sendall(bytes(1000))
                told = begun.recv(1000)
        assert b" 503 " in told
        assert answer(silent)[0] == 503
        assert service.process.wait(10) == 0
        assert service.process.stderr is not None
        assert service.process.stderr.read() == ""


def test_a_photo_as_large_as_is_allowed_may_come_as_a_form(tiny_model: Path) -> None:
    size = 140 * 2**20
    start = b'--cut\r\nContent-Disposition: form-data; name="photos"; filename="large.jpg"\r\n\r\n'
    end = b"\r\n--cut--\r\n"
    form = head(len(start) + size + len(end), "Content-Type: multipart/form-data; boundary=cut")
    with serving(tiny_model, "--max-bytes", str(size)) as service:
        status, _, content = service.ask(form, start, bytes(size), end)
        assert (status, json.loads(content)["results"][0]["error"]["kind"]) == (200, "unreadable")


def test_a_service_that_cannot_start_says_so_and_is_not_announced(tiny_model: Path) -> None:
    before = "import clothing_classifier.service.decoding as decoding; decoding._START = 'raise SystemExit'"
    code = f"{before}\nfrom clothing_classifier.cli import main\nmain()"
    run = subprocess.run(
        [sys.executable, "-c", code, "serve", "--model", str(tiny_model), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert "a process that decodes photos does not start" in run.stderr
    assert "Serving" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("Error: the service could not be started")


def test_a_second_signal_ends_it(tiny_model: Path) -> None:
    with serving(tiny_model) as service, service.connect(head(100), b"x"):
        while b"under_way 1.0" not in service.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")[2]:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGINT)
        while service.ask(READY)[0] == 200:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGINT)
        service.process.wait(20)


def test_no_process_is_left(tiny_model: Path) -> None:
    with serving(tiny_model, "--threads", "2") as service:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(service.process.pid)], capture_output=True, text=True, check=True
        )
        children = [int(line) for line in listed.stdout.split()]
        assert len(children) >= 2
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def figure(service: Service, name: str) -> float:
    text = service.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")[2].decode()
    found = re.search(rf"^clothing_{name} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


def assert_turned_away(service: Service) -> None:
    """Assert that a body is refused before it comes."""
    for expectation in ("Accept: */*", "Expect: 100-continue"):
        status, text, content = service.ask(head(10_000_000, expectation))
        assert status == 503
        assert json.loads(content)["type"] == "/docs#overloaded"
        assert re.search(r"retry-after: [1-9]", text)


def test_too_many_at_once_are_turned_away_before_their_bodies_come(tiny_model: Path) -> None:
    before = (
        "import signal, clothing_classifier.service.pipeline as pipeline\n"
        "decode = pipeline.Decoders.decode\n"
        "async def wait(self, photo):\n"
        "    while photo.endswith(b'wait') and self.waits: await pipeline.asyncio.sleep(0.01)\n"
        "    return await decode(self, photo)\n"
        "pipeline.Decoders.decode, pipeline.Decoders.waits = wait, True\n"
        "signal.signal(signal.SIGUSR1, lambda number, frame: setattr(pipeline.Decoders, 'waits', False))\n"
    )
    body = photo()
    with (
        serving(tiny_model, "--max-requests", "1", before=before) as service,
        service.connect(head(len(body)), body[:20]) as late,
    ):
        while figure(service, "readers_under_way") < 1:
            time.sleep(0.01)
        with service.connect(head(len(body) + 4), body, b"wait") as first:
            while figure(service, "photos_under_way") < 1:
                time.sleep(0.01)
            assert_turned_away(service)
            late.sendall(body[20:])  # was let in before, and is there too early
            assert answer(late)[0] == 503
            service.process.send_signal(signal.SIGUSR1)
            assert answer(first)[0] == 200
        assert service.ask(head(len(body)), body)[0] == 200


def test_bodies_that_are_slow_in_coming_keep_nobody_from_the_model(tiny_model: Path) -> None:
    body = photo()
    with serving(tiny_model, "--max-requests", "2") as service:
        slow = [service.connect(head(len(body)), body[:20]) for _ in range(8)]
        while figure(service, "readers_under_way") < len(slow):
            time.sleep(0.01)
        assert figure(service, "requests_under_way") == len(slow)
        for _ in range(3):
            assert service.ask(head(len(body)), body)[0] == 200
        for connection in slow:
            with connection:
                connection.sendall(body[20:])
                assert answer(connection)[0] == 200
        assert figure(service, "readers_under_way") == figure(service, "requests_under_way") == 0


def test_so_many_bodies_are_read_at_once_and_no_more(tiny_model: Path) -> None:
    before = (
        "import functools, clothing_classifier.service.settings as settings\n"
        "settings.Settings = functools.partial(settings.Settings, readers=2)\n"
    )
    body = photo()
    with serving(tiny_model, before=before) as service:
        slow = [service.connect(head(len(body)), body[:20]) for _ in range(2)]
        while figure(service, "readers_under_way") < len(slow):
            time.sleep(0.01)
        assert_turned_away(service)
        for connection in slow:
            with connection:
                connection.sendall(body[20:])
                assert answer(connection)[0] == 200
        assert service.ask(head(len(body)), body)[0] == 200


def test_bodies_take_a_quarter_of_the_memory_and_one_form_is_always_held(tiny_model: Path) -> None:
    before = "import clothing_classifier.machine as machine; machine.available_memory = lambda: 2**29"
    start = b'--cut\r\nContent-Disposition: form-data; name="photos"; filename="large.jpg"\r\n\r\n'
    form = "Content-Type: multipart/form-data; boundary=cut"
    most = 128 * 2**20
    with serving(tiny_model, before=before) as service:
        with service.connect(head(most, form), start, bytes(most // 2)):
            while figure(service, "held_bytes") < most // 2:
                time.sleep(0.01)
            assert service.ask(head(most // 2, form))[0] == 503
            assert service.ask(head(len(photo())), photo())[0] == 200
        while figure(service, "held_bytes"):
            time.sleep(0.01)
        with service.connect(head(most, form, "Expect: 100-continue")) as whole:
            assert whole.recv(100).startswith(b"HTTP/1.1 100 ")


def test_a_refused_body_is_read_out_so_that_the_answer_arrives(service: Service) -> None:
    with service.connect(head(50_000_000)) as connection:
        for _ in range(200):
            connection.sendall(bytes(100_000))  # far more than the sockets hold, after the answer was sent
        status, text, content = answer(connection)
    assert status == 413
    assert "connection: close" in text
    assert json.loads(content)["type"] == "/docs#too-large"


def test_bodies_without_a_length_are_limited_too(service: Service) -> None:
    chunk = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
    start = b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with service.connect(start) as connection:
        for _ in range(21):
            connection.sendall(chunk)
        assert answer(connection)[0] == 413


def test_a_body_that_trickles_is_given_up_and_delays_nobody(service: Service) -> None:
    body = photo()
    slow = [service.connect(head(1000), b"x") for _ in range(20)]
    assert service.ask(head(len(body)), body)[0] == 200
    for connection in slow:
        with connection:
            status, _, content = answer(connection)
            assert status == 408
            assert json.loads(content)["type"] == "/docs#too-slow"


@pytest.mark.parametrize("piece", [b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_come_is_given_up(service: Service, piece: bytes) -> None:
    with service.connect(piece) as connection:
        assert connection.recv(100) == b""


def test_a_connection_is_kept_between_requests(service: Service) -> None:
    body = photo()
    with service.connect() as connection:
        for _ in range(3):
            connection.sendall(head(len(body)) + body)
            assert answer(connection)[0] == 200
        connection.sendall(READY)
        assert answer(connection)[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000,  # a head that is too large does not have to end
        b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: rot13\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_problem_too(service: Service, request_bytes: bytes) -> None:
    status, text, content = service.ask(request_bytes)
    assert status in (400, 501)
    assert "application/problem+json" in text
    assert "server:" not in text
    assert "connection: close" in text
    for header in ("x-content-type-options: nosniff", "content-security-policy: default-src 'none'", "no-store"):
        assert header in text
    assert json.loads(content)["type"] == "/docs#malformed"


def test_clients_that_go_away_leave_nothing_behind(service: Service) -> None:
    body = photo()
    for sent in (body[:10], body):
        for _ in range(20):
            service.connect(head(len(body)), sent).close()
    while b"clothing_requests_under_way 0.0" not in (
        figures := service.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")[2]
    ):
        time.sleep(0.01)
    assert b"clothing_held_bytes 0.0" in figures
    assert b'status="499"' in figures
    assert b'kind="internal"' not in figures  # it is no fault of the service's, and wakes nobody
    assert service.ask(head(len(body)), body)[0] == 200


def test_uploads_never_touch_the_disk(tiny_model: Path) -> None:
    # The process may write no byte to any file; a spooled upload would fail.
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    file = BytesIO()
    Image.frombytes("RGB", (900, 900), os.urandom(3 * 900 * 900)).save(file, "PNG")
    part = b'--cut\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n' + file.getvalue() + b"\r\n"
    body = part * 4 + b"--cut--\r\n"
    with serving(tiny_model, before=before) as service:
        status, _, content = service.ask(head(len(body), "Content-Type: multipart/form-data; boundary=cut"), body)
    assert status == 200
    assert all("label" in result for result in json.loads(content)["results"])


def test_a_fault_of_the_service_is_told_without_its_inside(tiny_model: Path) -> None:
    before = (
        "from clothing_classifier.classifier import Classifier\n"
        "compute = Classifier.compute_probabilities\n"
        "def fail(self, pixels):\n"
        "    if pixels.any(): raise RuntimeError('the inside')\n"
        "    return compute(self, pixels)\n"
        "Classifier.compute_probabilities = fail\n"
    )
    body = photo()
    with serving(tiny_model, before=before) as service:
        status, text, content = service.ask(head(len(body)), body)
        assert (status, json.loads(content)["type"]) == (500, "/docs#internal")
        assert b"inside" not in content
        assert "x-content-type-options: nosniff" in text
        assert service.ask(READY)[0] == 200
        for _ in range(2):
            assert service.ask(head(len(body)), body)[0] == 500
        for path in (READY, READY.replace(b"readyz", b"healthz")):  # whoever supervises it may start another
            status, _, content = service.ask(path)
            assert (status, json.loads(content)["type"]) == (503, "/docs#failing")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stderr is not None
        log = service.process.stderr.read()
    assert log.count("RuntimeError: the inside") == 3  # the operator sees it
    assert re.search(r"^2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ERROR POST '/v1/predictions' failed$", log, re.MULTILINE)


def test_a_photo_that_is_not_reached_in_time_is_no_fault_of_the_photo(tiny_model: Path) -> None:
    before = (
        "import functools, clothing_classifier.service.pipeline as pipeline\n"
        "import clothing_classifier.service.settings as settings\n"
        "settings.Settings = functools.partial(settings.Settings, request_seconds=0.2)\n"
        "async def never(self, photo): await pipeline.asyncio.sleep(60)\n"
        "pipeline.Decoders.decode = never\n"
    )
    body = photo()
    part = b'--cut\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n' + body + b"\r\n--cut--\r\n"
    with serving(tiny_model, before=before) as service:
        status, text, content = service.ask(head(len(body)), body)
        assert (status, json.loads(content)["type"]) == (503, "/docs#not-reached")
        assert re.search(r"retry-after: [1-9]", text)
        status, _, content = service.ask(head(len(part), "Content-Type: multipart/form-data; boundary=cut"), part)
        assert status == 200
        error = json.loads(content)["results"][0]["error"]
        assert error["kind"] == "not-reached"
        assert "the service has too much to do" in error["reason"]


def test_a_large_photo_does_not_delay_small_ones(tiny_model: Path) -> None:
    file = BytesIO()
    Image.new("RGB", (7000, 7000)).save(file, "PNG", compress_level=1)
    large, small = file.getvalue(), photo()
    done = threading.Event()
    with serving(tiny_model, "--threads", "1") as service:

        def send_large() -> None:
            service.ask(head(len(large)), large)
            done.set()

        threads = [threading.Thread(target=send_large) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            assert service.ask(head(len(small)), small)[0] == 200
        for thread in threads:
            thread.join()
        assert done.is_set()


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def test_connections_leave_file_descriptors_for_all_else(tiny_model: Path) -> None:
    before = (
        "import resource, clothing_classifier.service.server as server\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
        "server._HEAD_SECONDS = 60.0\n"
    )
    body = photo()
    with serving(tiny_model, before=before) as service:
        idle = [service.connect() for _ in range(600)]
        kept, started = idle, time.monotonic()
        while len(kept) > 200 - 128 and time.monotonic() - started < 30:
            kept = [connection for connection in kept if is_open(connection)]
        assert len(kept) == 200 - 128
        for connection in idle:
            connection.close()
        assert service.ask(head(len(body)), body)[0] == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
        assert service.process.stderr is not None
        assert service.process.stderr.read() == ""  # of descriptors that are all taken, asyncio writes long lines


def test_it_listens_on_this_machine_only(service: Service) -> None:
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
        if not str(address).startswith("127."):
            with pytest.raises(OSError, match=r"refused|unreachable|timed"):
                socket.create_connection((str(address), service.port), timeout=2)
    with pytest.raises(OSError, match=r"refused|assign|unreachable|support"):
        socket.create_connection(("::1", service.port), timeout=2)


def test_requests_are_logged_when_asked_for(tiny_model: Path) -> None:
    body = photo()
    with serving(tiny_model, "--access-log") as service:
        service.ask(head(len(body)), body)
        service.ask(b"GET /no%0Ane HTTP/1.1\r\nHost: localhost\r\n\r\n")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stderr is not None
        log = service.process.stderr.read().splitlines()
    stamp = r"2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ INFO 127\.0\.0\.1"
    assert [bool(re.fullmatch(rf"{stamp} POST '/v1/predictions' 200, \d+ ms", line)) for line in log] == [True, False]
    assert re.fullmatch(rf"{stamp} GET '/no\\nne' 404, \d+ ms", log[1])
