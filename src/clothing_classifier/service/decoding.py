"""Files → the model's input, in processes of their own, so that no photo stops the service or delays the others."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from asyncio import Semaphore
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from threading import Timer
from time import monotonic
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from clothing_classifier.machine import available_memory
from clothing_classifier.resizing import Resizing
from clothing_classifier.service.decoder import HEAD, LENGTH, READY
from clothing_classifier.service.problems import PhotoTrouble

QUICK: Final = 1.0
"""Seconds after which a photo counts as slow. Photos of telephones take hundredths of it."""

SLOW: Final = 2
"""Slow photos that are decoded at once, beside the others."""

_SLOW_NICENESS: Final = 10

_STARTING: Final = 60.0
"""Seconds after which a process that does not say that it is ready is taken for one that never will."""

_START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from clothing_classifier.service.decoder import main; main(sys.argv[2])"
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A photo as the model takes it.

    Attributes:
        pixels: ``uint8 [height, width, 3]``, as the card's resizing says.
        width: columns of ``pixels`` that are the photo; the rest, on both sides, is filled.
        height: rows of ``pixels`` that are the photo.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int


class Decoders:
    """Processes that decode.

    As many photos are decoded at once as there are processes, in their order. A photo that takes longer than `QUICK`
    stops counting: its process goes on at a lower priority and the next photo gets a further one. At most `SLOW` photos
    go on so; a further slow one is stopped and begun again when there is room. So the quick wait for the slow no longer
    than `QUICK`, whatever is sent.

    Together they take no more memory than there is: pictures that are large for this machine are decoded one at a time.

    Args:
        resizing: the card's.
        max_bytes: the largest file.
        max_pixels: the largest picture.
        seconds: how long one photo may take.
        processes: how many decode at once.
        observe: called with the seconds that each photo took.
    """

    def __init__(
        self,
        resizing: Resizing,
        *,
        max_bytes: int,
        max_pixels: int,
        seconds: float,
        processes: int,
        observe: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._turns = _make_turns()
        settings = json.dumps(
            {
                "resizing": resizing.to_dict(),
                "bytes": max_bytes,
                "pixels": max_pixels,
                "share": available_memory() // 2 // (processes + SLOW),
                "turns": self._turns and self._turns.fileno(),
            }
        )
        # With this process's own modules, and none that happen to lie in the folder it was started from.
        self._command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), settings]
        self._shape = (resizing.height, resizing.width, 3)
        self._seconds = seconds
        self._processes = processes
        self._observe = observe
        self._quick, self._slow = Semaphore(processes), Semaphore(SLOW)
        self._idle: list[_Process] = []
        self._threads = ThreadPoolExecutor(processes + SLOW + 2, "decode")
        self._attempts: set[asyncio.Task[bytes | None]] = set()
        self._clearings: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.active = 0
        """Photos that are being decoded, the slow ones not counted."""

    async def start(self) -> None:
        """Start the processes.

        Raises:
            OSError: they do not start.
        """
        loop = asyncio.get_running_loop()
        started = [loop.run_in_executor(self._threads, self._make_process) for _ in range(self._processes)]
        self._idle += await asyncio.gather(*started)

    async def stop(self) -> None:
        """End the processes; what they are at is lost."""
        self._stopping = True
        for task in self._attempts:
            task.cancel()
        while tasks := self._attempts | self._clearings:
            await asyncio.wait(tasks)
        for process in self._idle:
            process.end()
        self._threads.shutdown()
        if self._turns is not None:
            self._turns.close()

    async def decode(self, photo: bytes) -> Prepared:
        """Decode a file.

        Raises:
            PhotoTrouble: it gives no picture, or takes too long.
        """
        started = monotonic()
        answer = await self._in_lane(self._quick, photo)
        if answer is None:
            answer = await self._in_lane(self._slow, photo)
        self._observe(monotonic() - started)
        assert answer is not None
        fine, width, height, _ = HEAD.unpack_from(answer)
        if not fine:
            raise PhotoTrouble(*json.loads(answer[HEAD.size :]))
        return Prepared(np.frombuffer(answer, np.uint8, offset=HEAD.size).reshape(self._shape), width, height)

    async def _in_lane(self, lane: Semaphore, photo: bytes) -> bytes | None:
        await lane.acquire()
        # Who asked may go away; a process that has begun is not wasted for that.
        task = asyncio.create_task(self._attempt(lane, photo))
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        return await asyncio.shield(task)

    async def _attempt(self, lane: Semaphore, photo: bytes) -> bytes | None:
        """Return the answer, or ``None`` where the photo is slow and must wait for its turn among the slow."""
        loop = asyncio.get_running_loop()
        process: _Process | None = None
        job: asyncio.Future[bytes] | None = None
        healthy = False
        self.active += lane is self._quick
        try:
            while self._idle and process is None:
                process = self._idle.pop()
                if not process.alive:
                    process.end()
                    process = None
            if process is None:
                process = await loop.run_in_executor(self._threads, self._make_process)
            job = loop.run_in_executor(self._threads, process.ask, photo)
            if lane is self._quick:
                done, _ = await asyncio.wait({job}, timeout=min(QUICK, self._seconds))
                if not done:
                    if self._slow.locked():
                        return None
                    await self._slow.acquire()
                    self._quick.release()
                    self.active -= 1
                    lane = self._slow
            if lane is self._slow:
                process.slow_down()
                done, _ = await asyncio.wait({job}, timeout=self._seconds)
                if not done:
                    raise PhotoTrouble("timeout", f"takes longer than {self._seconds:g} s to decode; make it smaller")
            try:
                answer = job.result()
            except EOFError as error:
                raise PhotoTrouble("unreadable", "makes its decoder fail; export it again") from error
            healthy = lane is self._quick  # priority is not given back
            return answer
        finally:
            lane.release()
            self.active -= lane is self._quick
            if process is not None and healthy:
                self._idle.append(process)
            elif process is not None:
                process.kill()
                task = asyncio.create_task(self._replace(process, job))
                self._clearings.add(task)
                task.add_done_callback(self._clearings.discard)

    async def _replace(self, process: _Process, job: asyncio.Future[bytes] | None) -> None:
        """Clear a process away, and have a new one ready before a photo needs it."""
        loop = asyncio.get_running_loop()
        if job is not None:
            await asyncio.wait({job})
            job.exception()
        await loop.run_in_executor(self._threads, process.end)
        if not self._stopping and len(self._idle) + self.active < self._processes:
            self._idle.append(await loop.run_in_executor(self._threads, self._make_process))

    def _make_process(self) -> _Process:
        return _Process(self._command, self._turns)


def _make_turns() -> IO[bytes] | None:
    """Return the file by which the processes take turns; ``None`` on Windows."""
    if hasattr(os, "memfd_create"):  # where nothing may be written to a disk, this may
        return open(os.memfd_create("turns"), "wb")
    return TemporaryFile() if os.name == "posix" else None


class _Process:
    """One process; to make one and to ask it blocks."""

    def __init__(self, command: list[str], inherited: IO[bytes] | None = None) -> None:
        # The key is none of its business, and one thread of a numeric library is enough.
        environment = {name: value for name, value in os.environ.items() if name != "CLOTHING_API_KEY"}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=() if inherited is None else (inherited.fileno(),),
        )
        assert self._process.stdout is not None
        hanging = Timer(_STARTING, self._process.kill)
        hanging.start()
        ready = self._process.stdout.read(len(READY)) == READY
        hanging.cancel()
        if not ready:
            self.end()
            raise OSError("a process that decodes photos does not start")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, photo: bytes) -> bytes:
        """Return head and bytes of the answer.

        Raises:
            EOFError: the process ended.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(LENGTH.pack(len(photo)))
            stdin.write(photo)
            stdin.flush()
            head = stdout.read(HEAD.size)
            length = HEAD.unpack(head)[3] if len(head) == HEAD.size else 1
            body = stdout.read(length) if head else b""
        except (OSError, ValueError) as error:  # a broken pipe, or closed by `end`
            raise EOFError from error
        if len(body) != length:
            raise EOFError
        return head + body

    def slow_down(self) -> None:
        with suppress(AttributeError, OSError):  # Windows has none
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _SLOW_NICENESS)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
