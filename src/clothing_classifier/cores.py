"""How many cores there are to use: fewer than the machine's, in a container or where a process is bound to some."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MOST_WORKERS: Final = 8
"""Threads or processes that open photos side by side, at most: each may hold a decoded photo of the largest size."""


def available_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use, 1 or more.

    Counted are those that it is bound to, and no more than its control group's quota of processor time pays for, as
    ``docker run --cpus`` sets it (Linux, cgroup v2, https://docs.kernel.org/admin-guide/cgroup-v2.html): threads beyond
    that are stopped by the kernel for a part of the time, and with them all that wait for them.

    Args:
        root: where the system's ``proc`` and ``sys`` lie.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *(math.ceil(quota) for quota in _quotas(root))]))


def share_cores(cores: int | None = None) -> tuple[int, int]:
    """Return how many threads should work side by side, and how many threads should compute for each of them.

    Many photos are done fastest where each core does its own, from the file to the answer: cores that compute one
    batch together wait for each other after every layer.

    Args:
        cores: how many cores there are; by default those that this process may use.

    Returns:
        The first is for ``predict_photos(threads=…)``, the second for ``Classifier.load(threads=…)``.
    """
    cores = cores or available_cores()
    workers = min(cores, MOST_WORKERS)
    return workers, cores // workers


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of this process's control group and of those that it is in."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text("utf-8").splitlines()
        own = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    except (OSError, ValueError, StopIteration):
        return
    top = root / "sys" / "fs" / "cgroup"
    group = top / own.lstrip("/")
    for folder in (group, *group.parents):
        try:
            quota, period = (folder / "cpu.max").read_text("utf-8").split()
            if quota != "max":
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            pass  # the root has no such file, nor has a group in which processor time is not shared out
        if folder == top:
            return
