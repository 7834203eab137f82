"""A long run of good and broken photos: nothing is lost, nothing fails that should not, and memory stays flat.

    python benchmarks/soak.py --requests 20000 --out soak.json

A tenth of the requests are broken files. Near the end the service is told to stop (SIGTERM) while all clients go on;
every request that was sent before is answered. Ends with 1 where anything is not as it should be. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image, ImageDraw

GROWTH = 48 * 2**20
"""Bytes that the service and its processes may grow from the second fifth of the requests to the last."""


@dataclass(slots=True)
class Case:
    """One kind of request: its body, and the statuses that are right."""

    name: str
    request: bytes
    statuses: set[int]


@dataclass(slots=True)
class Tally:
    """What came of the requests."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    turned_away: int = 0
    memory: list[tuple[int, int]] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Run, print what came of it, and say so by the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--model", help="a model file; by default the model that ships")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    command = [sys.executable, "-m", "clothing_classifier", "serve", "--port", "0"]
    command += ["--model", options.model] if options.model else []
    start = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        tally = asyncio.run(
            soak(server, int(line.split("/ ")[0].rpartition(":")[2]), options.requests, options.clients)
        )
        code = server.wait(60)
        log = server.stderr.read()
    # Medians, as a decoder that is being replaced counts twice for a moment; the first fifth is for warming up.
    sizes = [size for _, size in tally.memory]
    fifth = max(1, len(sizes) // 5)
    early, late = median(sizes[fifth : 2 * fifth] or sizes), median(sizes[-fifth:])
    growth = late - early
    result = {
        "requests": tally.sent,
        "seconds": round(time.monotonic() - start, 1),
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "wrong": tally.wrong[:20],
        "lost": tally.lost[:20],
        "not_accepted_while_stopping": tally.turned_away,
        "exit_code": code,
        "log": log.splitlines()[:20],
        "memory_bytes": {"second_fifth": early, "last_fifth": late, "highest": max(sizes), "growth": growth},
    }
    fine = not (tally.wrong or tally.lost or code or log) and growth < GROWTH
    print(json.dumps(result | {"fine": fine}, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result | {"fine": fine}, indent=2) + "\n")
    sys.exit(not fine)


async def soak(server: subprocess.Popen[str], port: int, requests: int, clients: int) -> Tally:
    """Send the requests; stop the service before the last hundredth of them."""
    chance = random.Random(0)
    good, broken = make_cases(chance)
    tally = Tally()
    stopped: float | None = None

    async def client() -> None:
        nonlocal stopped
        reader = writer = None
        while tally.sent < requests:
            tally.sent += 1
            number = tally.sent
            if number == requests - requests // 100:
                stopped = time.monotonic()
                server.send_signal(signal.SIGTERM)
            if number % max(1, requests // 200) == 0 and stopped is None:
                tally.memory.append((number, memory_of(server.pid)))
            case = chance.choice(broken if chance.random() < 0.1 else good)
            begun = stopped is None
            answer = b""
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(case.request)
                answer = await reader.readuntil(b"\r\n\r\n")
                head = answer.decode("latin-1").lower()
                body = await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
            except (OSError, EOFError) as error:
                if begun or answer:
                    tally.lost.append(f"{number} {case.name}: {error!r}")
                else:
                    tally.turned_away += 1
                if writer is not None:
                    writer.close()
                reader = writer = None
                continue
            judge(tally, case, int(head.split()[1]), body)
            if "connection: close" in head:
                writer.close()
                reader = writer = None
        if writer is not None:
            writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return tally


def judge(tally: Tally, case: Case, status: int, body: bytes) -> None:
    """Compare an answer with what it should be: its status, and the answer to the same photo before."""
    tally.statuses[status] += 1
    if status == 503:
        return
    values = json.loads(body)
    said = str([result.get("label", result.get("error")) for result in values.get("results", [])] or values["type"])
    if status not in case.statuses:
        tally.wrong.append(f"{case.name}: status {status}, {said}")
    elif tally.answers.setdefault(case.name, said) != said:
        tally.wrong.append(f"{case.name}: {said}, and before {tally.answers[case.name]}")


def make_cases(chance: random.Random) -> tuple[list[Case], list[Case]]:
    """Return good requests and broken ones."""
    photos = []
    for number in range(40):
        picture = Image.new("RGB", (chance.randint(40, 300), chance.randint(40, 300)), _colour(chance))
        draw = ImageDraw.Draw(picture)
        for _ in range(8):
            corners = sorted(chance.randrange(300) for _ in range(2)), sorted(chance.randrange(300) for _ in range(2))
            draw.ellipse((corners[0][0], corners[1][0], corners[0][1], corners[1][1]), fill=_colour(chance))
        file = BytesIO()
        picture.save(file, ("JPEG", "PNG", "WEBP")[number % 3])
        photos.append(file.getvalue())
    good = [Case(f"photo {number}", _request(photo), {200}) for number, photo in enumerate(photos)]
    good += [Case(f"form {number}", _form(photos[number : number + 3]), {200}) for number in range(4)]
    good += [Case(f"evidence {number}", _request(photos[number], "?evidence=true"), {200}) for number in range(4)]
    bomb = BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    bodies = {
        "nothing": b"",
        "noise": chance.randbytes(5000),
        "zeros": bytes(5000),
        "a document": b"%PDF-1.7 " + chance.randbytes(300),
        "a bomb": bomb.getvalue(),
        **{f"cut {number}": photo[: len(photo) // 2] for number, photo in enumerate(photos[:12])},
        **{f"flipped {number}": _flip(photo, chance) for number, photo in enumerate(photos[12:36])},
    }
    broken = [Case(name, _request(body), {200, 413, 415, 422}) for name, body in bodies.items()]
    broken.append(Case("half a form", _form([photos[0]], end=False), {400}))
    broken.append(Case("a form of broken files", _form([b"x", photos[0][:50], b""]), {200}))
    return good, broken


def _colour(chance: random.Random) -> tuple[int, int, int]:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


def _flip(photo: bytes, chance: random.Random) -> bytes:
    content = bytearray(photo)
    for _ in range(20):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def _request(body: bytes, query: str = "", media_type: str = "image/jpeg") -> bytes:
    head = f"POST /v1/predictions{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _form(photos: list[bytes], *, end: bool = True) -> bytes:
    parts = b"".join(
        b'--cut\r\nContent-Disposition: form-data; name="photos"; filename="a.jpg"\r\n\r\n' + photo + b"\r\n"
        for photo in photos
    )
    return _request(parts + (b"--cut--\r\n" if end else b""), media_type="multipart/form-data; boundary=cut")


def memory_of(pid: int) -> int:
    """Return the resident bytes of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for thread in Path(f"/proc/{pid}/task").iterdir():  # a thread's children are listed with it
        if thread.name != str(pid):
            children += _read(thread / "children").split()
    pages = [_read(Path(f"/proc/{process}/statm")).split() for process in (pid, *children)]
    return sum(int(fields[1]) for fields in pages if fields) * os.sysconf("SC_PAGE_SIZE")


def _read(path: Path) -> Any:
    try:
        return path.read_text()
    except OSError:  # it has ended in the meantime
        return ""


if __name__ == "__main__":
    main()
