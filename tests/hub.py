"""A stand-in of the Hugging Face hub on this machine.

It answers what the hub answers to ``huggingface_hub`` (the routes and headers that its ``file_download.py`` asks for):

    HEAD, GET /OWNER/NAME/resolve/REVISION/FILE   the commit, the entity tag and the size in headers. A large file is
                                                  elsewhere (302, to an address of the storage), a small one is sent
    GET /OBJECT on the storage                    the content, or the rest of it from a byte on (206)

A large file's tag is the sha256 of its content, a small one's is git's SHA-1. What is not there, not allowed or broken
is answered with the hub's status codes and its ``X-Error-Code``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

LARGE = 10_000


class Repository:
    """Files of one model; `refusals` and `faults` are used up by one request each.

    Args:
        files: name → content.
        refusals: what the hub does in place of answering: a status code, ``"gated"`` or ``"stranger"``.
        faults: what the storage does in place of sending the content: a status code, ``"flipped"`` (one bit),
            ``"short"`` (the half, as if it were all), ``"cut off"`` (the connection ends in the middle).
        states_size: whether the hub states the size of a large file.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        refusals: Iterable[int | str] = (),
        faults: Iterable[int | str] = (),
        states_size: bool = True,
    ) -> None:
        self.files = files
        self.refusals: Iterator[int | str] = iter(refusals)
        self.faults: Iterator[int | str] = iter(faults)
        self.states_size = states_size
        digests = "".join(f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(files.items()))
        self.commit = hashlib.sha1(digests.encode()).hexdigest()


class Hub:
    """The hub and, at another address, its storage. A context manager; `repositories` may change at any time.

    Attributes:
        address: what ``HF_ENDPOINT`` is to be.
        repositories: ``OWNER/NAME`` → its versions; the last one is ``main``.
        requests: what was asked for since the list was last cleared.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, list[Repository]] = {}
        self.requests: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Hub:
        self.address = self._serve(self._answer)
        self.storage = self._serve(self._send_object)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def put(self, name: str, *versions: Repository) -> None:
        """Publish a repository in place of what was there under its name."""
        self.repositories[name] = list(versions)

    def downloads(self) -> list[str]:
        """Return what was asked of the storage."""
        return [request for request in self.requests if request.startswith("GET storage")]

    def _serve(self, answer: Any) -> str:
        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that goes away in the midst of an answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = self._stack.enter_context(Server(("127.0.0.1", 0), Handler))
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0].strip("/")
        self.requests.append(f"{request.command} {path}")
        owner, name, route, revision, file, *_ = [*path.split("/"), "", "", "", "", ""]
        versions = self.repositories.get(f"{owner}/{name}")
        if route != "resolve":
            return reply(request, 404, {})
        if versions is None:  # what the hub says to those without an account, so that private names stay private
            return reply(request, 401, {"X-Error-Message": "Invalid username or password."})
        refusal = next(versions[-1].refusals, None)
        if refusal == "gated":
            return reply(request, 403, {"X-Error-Code": "GatedRepo"})
        if refusal == "stranger":  # a hotel's sign-in page
            return reply(request, 200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>")
        if refusal is not None:
            return reply(request, int(refusal), {"X-Error-Code": "RepoNotFound"} if refusal == 404 else {})
        repository = next((v for v in reversed(versions) if revision in ("main", v.commit)), None)
        if repository is None:
            return reply(request, 404, {"X-Error-Code": "RevisionNotFound"})
        headers = {"X-Repo-Commit": repository.commit}
        content = repository.files.get(file)
        if content is None:
            return reply(request, 404, {**headers, "X-Error-Code": "EntryNotFound"})
        if len(content) < LARGE:
            tag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return reply(request, 200, {**headers, "ETag": f'"{tag}"'}, content)
        headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        headers["ETag"] = '"of-the-pointer"'
        if repository.states_size:
            headers["X-Linked-Size"] = str(len(content))
        return reply(request, 302, {**headers, "Location": f"{self.storage}/{owner}/{name}/{repository.commit}/{file}"})

    def _send_object(self, request: BaseHTTPRequestHandler) -> None:
        owner, name, commit, file = request.path.strip("/").split("/")
        start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.requests.append(f"{request.command} storage {owner}/{name}/{file} from {start}")
        repository = next(v for v in self.repositories[f"{owner}/{name}"] if v.commit == commit)
        content = repository.files[file]
        fault = next(repository.faults, None)
        if fault == "flipped":
            content = content[:-1] + bytes([content[-1] ^ 1])
        elif fault == "short":
            content = content[: len(content) // 2]
        elif fault == "cut off":
            request.send_response(200)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content[: len(content) // 2])
            request.close_connection = True
            return
        elif fault is not None:
            return reply(request, int(fault), {})
        if start:
            of = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            return reply(request, 206, of, content[start:])
        return reply(request, 200, {}, content)


def reply(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes = b"") -> None:
    """Answer a request; the content is left out where only its headers were asked for."""
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)
