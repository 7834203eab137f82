from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from clothing_classifier.images import Kind, PhotoError, open_picture
from clothing_classifier.resizing import Resizing, resize
from clothing_classifier.service import decoding
from clothing_classifier.service.decoder import _explain
from clothing_classifier.service.decoding import Decoders
from clothing_classifier.service.problems import PHOTO_KINDS, PhotoTrouble

RESIZING = Resizing(24, 16)

posix = pytest.mark.skipif(os.name != "posix", reason="sends signals")


def photo(width: int, height: int, colour: str = "red", kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), colour).save(file, kind)
    return file.getvalue()


def run(
    check: Callable[[Decoders], Awaitable[None]], *, seconds: float = 20, processes: int = 1, max_pixels: int = 10**6
) -> None:
    async def all_of_it() -> None:
        decoders = Decoders(RESIZING, max_bytes=10**6, max_pixels=max_pixels, seconds=seconds, processes=processes)
        await decoders.start()
        try:
            await check(decoders)
        finally:
            await decoders.stop()

    asyncio.run(all_of_it())


@pytest.fixture
def sleepy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A decoder that sleeps on photos that say so, or ends; in front of the real one. It has no memory for a GIF and
    cannot read a BMP."""
    script = tmp_path / "sleepy.py"
    script.write_text(
        "import os, sys, time\n"
        "from clothing_classifier import images\n"
        "from clothing_classifier.service import decoder\n"
        "real = decoder.open_picture\n"
        "def open_picture(photo, **options):\n"
        "    if photo.startswith(b'sleep'): time.sleep(float(photo[5:]))\n"
        "    if photo == b'die': os.abort()\n"
        "    images._OPENERS['GIF'] = lambda data, max_pixels: bytearray(2**60)\n"
        "    images._OPENERS['BMP'] = lambda data, max_pixels: __import__('pi_bmp')\n"
        "    return real(photo, **options)\n"
        "decoder.open_picture = open_picture\n"
        "decoder.main(sys.argv[1])\n"
    )
    start = subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        return start([sys.executable, str(script), command[-1]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)


def test_the_pixels_are_those_that_every_other_way_gives(shared_examples: list[bytes]) -> None:
    async def check(decoders: Decoders) -> None:
        for content in [photo(40, 30), photo(30, 40, kind="JPEG"), *shared_examples]:
            prepared = await decoders.decode(content)
            picture = open_picture(content, target=RESIZING.target)
            assert (prepared.pixels == resize(picture, RESIZING)).all()
            assert (prepared.width, prepared.height) == RESIZING.target(*picture.size)

    run(check, processes=2)


@pytest.fixture(scope="module")
def shared_examples() -> list[bytes]:
    folder = Path(__file__).parents[1] / "examples"
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:3]]


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"%PDF-1.7", "not-a-picture", "is a PDF document, not a picture"),
        (b"\xff\x0a" + b"x" * 99, "not-a-picture", "is a JPEG XL picture, which cannot be read here"),
        (b"<svg xmlns=", "not-a-picture", "is an SVG drawing, not a picture"),
        (b"version https://git-lfs", "not-a-picture", "is a Git LFS pointer"),
        (b"", "unreadable", "is empty"),
        (b"\0" * 9000, "unreadable", "holds only zeros"),
        (photo(40, 30)[:-30], "unreadable", "copy it again"),
        (
            photo(1001, 1000),
            "too-many-pixels",
            "is 1,001 × 1,000 = 1,001,000 pixels, over the limit of 1,000,000; make",
        ),
    ],
)
def test_what_gives_no_picture_has_a_kind_and_a_reason(content: bytes, kind: str, reason: str) -> None:
    async def check(decoders: Decoders) -> None:
        with pytest.raises(PhotoTrouble) as caught:
            await decoders.decode(content)
        assert caught.value.kind == kind
        assert reason in caught.value.reason
        assert not re.search("max_|limit if|raise|lower", caught.value.reason)
        assert np.ptp((await decoders.decode(photo(16, 24))).pixels[:, :, 0]) == 0

    run(check)


@pytest.mark.usefixtures("sleepy")
def test_who_sends_a_photo_is_told_what_helps_there() -> None:
    async def check(decoders: Decoders) -> None:
        for content, kind, reason in (
            (b"GIF89a", "unreadable", "needs more memory than there is; make it smaller"),
            (b"BM", "not-a-picture", "is of a kind whose decoder is not installed here; send it as JPEG"),
        ):
            with pytest.raises(PhotoTrouble) as caught:
                await decoders.decode(content)
            assert (caught.value.kind, caught.value.reason) == (kind, reason)

    run(check)


def test_every_kind_of_error_has_a_status() -> None:
    for kind in get_args(Kind):
        assert _explain(PhotoError("photo", "is empty", kind))[0] in PHOTO_KINDS


@pytest.mark.usefixtures("sleepy")
def test_a_photo_that_takes_too_long_is_given_up() -> None:
    async def check(decoders: Decoders) -> None:
        with pytest.raises(PhotoTrouble, match="takes longer than 0\\.3 s") as caught:
            await decoders.decode(b"sleep3600")
        assert caught.value.kind == "timeout"
        # What comes next has a process that works.
        decoders._seconds = 20
        assert (await decoders.decode(photo(16, 24))).pixels[0, 0].tolist() == [255, 0, 0]

    run(check, seconds=0.3)


@pytest.mark.usefixtures("sleepy")
def test_slow_photos_delay_no_other() -> None:
    async def check(decoders: Decoders) -> None:
        # More of them than may be slow at once, before a single process.
        slow = [asyncio.create_task(decoders.decode(b"sleep3600")) for _ in range(4)]
        await asyncio.sleep(0)
        for _ in range(3):
            assert (await decoders.decode(photo(16, 24))).pixels[0, 0].tolist() == [255, 0, 0]
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()

    run(check, seconds=3600)


@pytest.mark.usefixtures("sleepy")
def test_slow_photos_are_decoded_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "QUICK", 0.2)

    async def check(decoders: Decoders) -> None:
        waiting = [decoders.decode(b"sleep0.6") for _ in range(4)]
        kinds = [getattr(trouble, "kind", None) for trouble in await asyncio.gather(*waiting, return_exceptions=True)]
        assert kinds == ["not-a-picture"] * 4

    run(check)


@pytest.mark.usefixtures("sleepy")
def test_a_decoder_that_crashes_takes_one_photo_along() -> None:
    async def check(decoders: Decoders) -> None:
        answers = await asyncio.gather(
            decoders.decode(photo(16, 24)),
            decoders.decode(b"die"),
            decoders.decode(photo(16, 24)),
            return_exceptions=True,
        )
        assert isinstance(answers[1], PhotoTrouble)
        assert answers[1].kind == "unreadable"
        assert not isinstance(answers[0], BaseException)
        assert not isinstance(answers[2], BaseException)

    run(check)


@posix
def test_photos_that_are_large_for_the_machine_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "available_memory", lambda: 1000)

    async def check(decoders: Decoders) -> None:
        for prepared in await asyncio.gather(*(decoders.decode(photo(160, 240)) for _ in range(6))):
            assert prepared.pixels[0, 0].tolist() == [255, 0, 0]

    run(check, processes=3)


@posix
def test_a_process_that_was_killed_while_idle_is_replaced() -> None:
    async def check(decoders: Decoders) -> None:
        await decoders.decode(photo(16, 24))
        os.kill(decoders._idle[0]._process.pid, signal.SIGKILL)
        decoders._idle[0]._process.wait()
        assert (await decoders.decode(photo(16, 24))).height == 24

    run(check)


@posix
def test_a_process_ends_with_the_service_and_not_before(tmp_path: Path) -> None:
    async def check(decoders: Decoders) -> None:
        await decoders.decode(photo(16, 24))
        process = decoders._idle[0]._process
        for number in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
        await decoders.decode(photo(16, 24))
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0

    run(check)


def test_who_went_away_wastes_no_process() -> None:
    async def check(decoders: Decoders) -> None:
        await decoders.decode(photo(16, 24))
        process = decoders._idle[0]
        task = asyncio.create_task(decoders.decode(photo(900, 900)))
        while not decoders.active:
            await asyncio.sleep(0)
        task.cancel()
        await decoders.decode(photo(16, 24))
        assert decoders._idle == [process]

    run(check)


def test_the_key_is_kept_from_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOTHING_API_KEY", "secret")
    environments: list[dict[str, str]] = []
    start = subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        environments.append(options["env"])  # type: ignore[arg-type]
        return start(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)

    async def check(decoders: Decoders) -> None:
        assert len(environments) == 2
        assert not any("secret" in environment.values() for environment in environments)

    run(check, processes=2)


def test_a_process_that_hangs_while_it_starts_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_STARTING", 0.3)
    with pytest.raises(OSError, match="does not start"):
        decoding._Process([sys.executable, "-c", "import time; time.sleep(100)"])
