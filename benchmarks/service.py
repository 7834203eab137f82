"""How fast the service is, beside the same model served otherwise, and beside ``clothing predict``; all in one run.

    python benchmarks/service.py [PHOTOS] --out service.json

Each server runs alone, on loopback, on the same cores as the clients that load it. A client sends one photo, waits for
the answer, and sends the next. LitServe is measured where it is installed (pip install litserve).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from machine import describe

try:
    import litserve  # type: ignore[import-not-found, unused-ignore]
except ModuleNotFoundError:
    litserve = None

HERE = Path(__file__).resolve()
PACKAGES = ("clothing-classifier", "onnxruntime", "pillow", "fastapi", "uvicorn", "litserve")
CLIENTS = (1, 16, 64)
OURS = "from clothing_classifier.cli.serve import command; command()"


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path, default=HERE.parents[1] / "examples", help="a folder of photos")
    parser.add_argument("--seconds", type=float, default=4, help="for each server, number of clients and round")
    parser.add_argument("--rounds", type=int, default=3, help="the figures are the rounds' medians")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    parser.add_argument("--serve", choices=("plain", "litserve"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        {"plain": serve_plain, "litserve": serve_litserve}[options.serve](options.port)
        return

    from clothing_classifier.bulk import find_photos

    paths = [path for path in islice(find_photos([str(options.photos)]), 200) if isinstance(path, str)]
    bodies = [Path(path).read_bytes() for path in paths]
    servers = ["service", "plain", *(["litserve"] if litserve else [])]
    offline: list[float] = []
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    # In rounds, as other work on the machine comes and goes: what is compared was measured within the same minute.
    for _ in range(options.rounds):
        offline.append(measure_offline(paths, options.seconds))
        for server in servers:
            with running(server) as port:
                requests = [request(body, encode=server == "litserve") for body in bodies]
                load(port, requests, 4, 1.0)
                for clients in CLIENTS:
                    figures = load(port, requests, clients, options.seconds)
                    figures["share_of_offline"] = round(figures["photos_per_second"] / offline[-1], 3)
                    figures["p99_over_p50"] = round(figures["p99_ms"] / figures["p50_ms"], 2)
                    found.setdefault((server, clients), []).append(figures)
    rows = [
        {"server": server, "clients": clients}
        | {name: round(median(figures[name] for figures in rounds), 3) for name in rounds[0]}
        for (server, clients), rounds in found.items()
    ]
    result = {
        "machine": describe(PACKAGES),
        "photos": len(paths),
        "bytes": sum(map(len, bodies)),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "offline_photos_per_second": round(median(offline), 1),
        "results": rows,
    }
    print(f"offline: {median(offline):.1f} photos/s")
    for row in rows:
        print(
            f"{row['server']:9} {row['clients']:3} clients: {row['photos_per_second']:6.1f} photos/s "
            f"({row['share_of_offline']:.0%} of offline), p50 {row['p50_ms']:7.1f} ms, p99 {row['p99_ms']:7.1f} ms "
            f"({row['p99_over_p50']:.1f}x), {row['refused']:g} refused, {row['failed']:g} failed"
        )
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def measure_offline(paths: list[str], seconds: float) -> float:
    """Return the photos per second of `clothing_classifier.bulk`, which is what ``clothing predict`` runs."""
    code = (
        "import sys, time, itertools, json\n"
        "from clothing_classifier.bulk import predict_photos\n"
        "from clothing_classifier.machine import share_cores\n"
        "from clothing_classifier.classifier import Classifier\n"
        "paths, seconds = json.load(sys.stdin)\n"
        "workers, together = share_cores()\n"
        "model = Classifier.load(threads=together)\n"
        "rows = predict_photos(model, itertools.cycle(paths), threads=workers)\n"
        "list(itertools.islice(rows, 32))\n"
        "start, count = time.perf_counter(), 0\n"
        "while time.perf_counter() - start < seconds:\n"
        "    next(rows); count += 1\n"
        "print(count / (time.perf_counter() - start))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([paths, seconds]), capture_output=True, text=True, check=True
    )
    return float(run.stdout)


@contextmanager
def running(server: str) -> Iterator[int]:
    """Run a server in a process of its own; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE), "--serve", server, "--port", str(port)]
    if server == "service":
        command = [sys.executable, "-c", OURS, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(600):
            time.sleep(0.1)
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"the server {server} ended with {process.returncode}") from None
        yield port
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
        with suppress(ProcessLookupError):  # LitServe leaves its workers behind
            os.killpg(process.pid, signal.SIGKILL)


def request(photo: bytes, *, encode: bool) -> bytes:
    """Return a whole request; ``encode`` puts the photo into JSON, which is what LitServe takes."""
    media_type, body = "image/jpeg", photo
    if encode:
        media_type, body = "application/json", json.dumps({"photo": base64.b64encode(photo).decode()}).encode()
    head = f"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def load(port: int, requests: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """Load a server, and return what the clients saw."""
    return asyncio.run(_load(port, requests, clients, seconds))


async def _load(port: int, requests: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    times: list[float] = []
    counts = {"refused": 0, "failed": 0}
    coming = cycle(requests)
    start = time.perf_counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - start < seconds:
            sent = time.perf_counter()
            status, _ = await ask(reader, writer, next(coming))
            if status == 200:
                times.append(time.perf_counter() - sent)
            else:
                counts["refused" if status == 503 else "failed"] += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    taken = time.perf_counter() - start
    times.sort()
    return {
        "photos_per_second": round(len(times) / taken, 1),
        "p50_ms": round(times[len(times) // 2] * 1000, 1),
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))] * 1000, 1),
        **counts,
    }


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """Send a request; return the answer's status and body."""
    writer.write(request)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", answer)
    return int(answer[9:12]), await reader.readexactly(int(length[1]) if length else 0)


def serve_plain(port: int) -> None:
    """Serve the model by a plain FastAPI handler: a thread a request, no batching."""
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool

    from clothing_classifier.classifier import Classifier

    classifier = Classifier.load()
    app = FastAPI()

    async def predict(request: Any, top: int = 5) -> dict[str, Any]:
        prediction = await run_in_threadpool(classifier.predict, await request.body())
        return {"answer": prediction.answer, "labels": prediction.top(top)}

    predict.__annotations__["request"] = Request  # imported here only
    app.post("/v1/predictions")(predict)
    uvicorn.run(app, port=port, log_level="error")


class Api(litserve.LitAPI if litserve else object):  # type: ignore[misc]
    """The model as LitServe takes it; its worker process imports this class."""

    def setup(self, device: str) -> None:
        """Load the model."""
        from clothing_classifier.classifier import Classifier

        self.classifier = Classifier.load()

    def decode_request(self, request):  # type: ignore[no-untyped-def] # LitServe goes by the annotation
        """Decode the photo."""
        return self.classifier.prepare(base64.b64decode(request["photo"]))

    def batch(self, inputs: list[Any]) -> Any:
        """Put photos together."""
        import numpy as np

        return np.stack(inputs)

    def predict(self, pixels: Any) -> Any:
        """Compute a batch."""
        return self.classifier.rank(self.classifier.run(pixels).probabilities)

    def unbatch(self, output: Any) -> Any:
        """Take a batch apart."""
        return output

    def encode_response(self, prediction: Any) -> dict[str, Any]:
        """Write the answer."""
        return {"answer": prediction.answer, "labels": prediction.top(3)}


def serve_litserve(port: int) -> None:
    """Serve the model by LitServe, with its batching and as many photos a batch as the service has."""
    api = Api(max_batch_size=8, batch_timeout=0.004, api_path="/v1/predictions")
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        port=port, log_level="error", generate_client_file=False
    )


if __name__ == "__main__":
    main()
