"""How much of the machine this process may use: fewer cores and less memory than there are, in a container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition
from typing import Final

MOST_WORKERS: Final = 8
"""Processes, or threads that check photos, side by side, at most: each may hold a decoded photo of the largest size."""

_UNKNOWN: Final = 4 * 2**30
"""Bytes of memory where a system does not tell how many there are."""


def available_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use, 1 or more.

    Counted are those that it is bound to, and no more than its control group's quota of processor time pays for, as
    ``docker run --cpus`` sets it (Linux, cgroup v2, https://docs.kernel.org/admin-guide/cgroup-v2.html): threads beyond
    that are stopped by the kernel for a part of the time, and with them all that wait for them.

    Args:
        root: where the system's ``proc`` and ``sys`` lie.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota / period for quota, period in _read_groups(root, "cpu.max", 2) if period]
    return max(1, min([bound, *map(math.ceil, quotas)]))


def share_cores(cores: int | None = None) -> tuple[int, int]:
    """Return how many threads should work side by side, and how many threads should compute for each of them.

    Many photos are done fastest where each core does its own, from the file to the answer: cores that compute one
    batch together wait for each other after every layer, and photos that are computed side by side would share one
    session's threads.

    Args:
        cores: how many cores there are; by default those that this process may use.

    Returns:
        The first is for ``predict_photos(threads=…)``, the second for ``Classifier.load(threads=…)``.
    """
    return cores or available_cores(), 1


def available_memory(root: Path = Path("/")) -> int:
    """Return how many bytes of memory this process may still take, as far as the system tells.

    On Linux what is free or can be freed, and no more than its control groups may hold (cgroup v2); elsewhere what the
    machine has, or 4 GiB where no one says.

    Args:
        root: where the system's ``proc`` and ``sys`` lie.
    """
    limits = [limit for (limit,) in _read_groups(root, "memory.max", 1)]
    try:
        lines = (root / "proc" / "meminfo").read_text("utf-8").splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        with suppress(AttributeError, ValueError, OSError):  # Windows has no such call, other systems not all names
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=_UNKNOWN)


class Room:
    """Memory that several threads share: who needs more than is free waits, unless nobody else has any.

    Args:
        size: bytes that may be taken at once.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._change = Condition()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Take so many bytes, and give them back; wait for them first where they are not free."""
        with self._change:
            self._change.wait_for(lambda: self._taken == 0 or self._taken + amount <= self._size)
            self._taken += amount
        try:
            yield
        finally:
            with self._change:
                self._taken -= amount
                self._change.notify_all()


class Turns(Room):
    """Memory that processes share: each may take its share at any time, and one of them at a time more than that.

    Args:
        share: bytes.
        file: the number of a file that is open for writing in all of these processes, inherited from one that made
            it. The kernel gives back what a process held that ended.
    """

    def __init__(self, share: int, file: int) -> None:
        super().__init__(share)
        self._file = file

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Take so many bytes, and give them back; wait for the other processes first where it is more than a share."""
        import fcntl  # Windows has none, and there is none of this

        with super().take(amount):
            if amount <= self._size:
                yield
                return
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)


def _read_groups(root: Path, name: str, count: int) -> Iterator[tuple[int, ...]]:
    """Yield the numbers in a file of this process's control group, and of those that it is in, where there are any."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text("utf-8").splitlines()
        own = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    except (OSError, ValueError, StopIteration):
        return
    top = root / "sys" / "fs" / "cgroup"
    group = top / own.lstrip("/")
    for folder in (group, *group.parents):
        try:
            numbers = tuple(map(int, (folder / name).read_text("utf-8").split()))
            if len(numbers) == count:
                yield numbers
        except (OSError, ValueError):
            pass  # "max" is no limit; the root has no such file, nor has a group in which this is not shared out
        if folder == top:
            return
